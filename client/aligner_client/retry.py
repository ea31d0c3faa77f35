"""Whether and when a failed call is retried."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from aligner_client import service_config
from aligner_client.errors import AlignerClientError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter, bounded by attempts and by the call's deadline. Times in seconds.

    Alignment has no side effects, so a retry is always safe; retried are UNAVAILABLE, CANCELLED by a server that stops, and
    RESOURCE_EXHAUSTED if the server says when to come back. The wait is between half and all of `initial * multiplier ** n`, at
    most `maximum`; if the server asks for a time (`grpc-retry-pushback-ms`, RetryInfo), it is that time plus up to one such
    wait, so that many clients do not return in one wave. The defaults are 4 attempts and 0.25 s, doubled up to 5 s: those of
    service_config.json.
    """

    attempts: int = service_config.ATTEMPTS
    """Attempts in all; 1: no retries."""
    initial: float = service_config.INITIAL_BACKOFF
    multiplier: float = service_config.MULTIPLIER
    maximum: float = service_config.MAX_BACKOFF
    max_retry_after: float = 60.0
    """Maximum wait a server may ask for; if it asks for more, the call fails and the error's `retry_after` has the time."""
    random: Callable[[], float] = field(default=random.random, repr=False, compare=False)

    def begin(self, timeout: float | None) -> Retry:
        """The state of one call whose attempts and waits together may take `timeout` seconds (None: no deadline)."""
        return Retry(self, timeout)


class Retry:
    """The state of one call. Not shared between calls."""

    def __init__(self, policy: RetryPolicy, timeout: float | None) -> None:
        self._policy = policy
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._failed = 0

    def remaining(self) -> float | None:
        """Seconds left for the next attempt; None: no deadline."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def delay(self, error: AlignerClientError) -> float | None:
        """Count a failed attempt. Returns seconds to wait before the next; None: give up and raise `error`."""
        policy = self._policy
        self._failed += 1
        if not error.retryable or self._failed >= policy.attempts:
            return None
        backoff = min(policy.maximum, policy.initial * policy.multiplier ** (self._failed - 1))
        if error.retry_after is None:
            delay = backoff * (0.5 + policy.random() / 2)
        elif error.retry_after <= policy.max_retry_after:
            delay = error.retry_after + backoff * policy.random()
        else:
            return None
        remaining = self.remaining()
        # Sleeping past the deadline would replace the cause by DEADLINE_EXCEEDED.
        return None if remaining is not None and delay >= remaining else delay
