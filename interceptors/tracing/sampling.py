"""Which calls leave a trace: a share of all, and of the others those that somebody will ask about."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from interceptors.tracing.headers import Parent

FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""What counts as a server's error: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/, server spans."""

_HALF = 1 << 64


@dataclass(frozen=True, slots=True)
class SamplingRules:
    """`ratio`: of the traces that begin here, 0..1, by the trace id's lower half, as the other servers of a trace decide."""

    ratio: float = 0.1
    follow_caller: bool = True
    """Record what the caller records. False, where strangers call: they do not decide what we pay; their ids are kept."""
    keep_codes: frozenset[grpc.StatusCode] = FAULTS
    """Calls that end so are kept whatever was decided when they began. Empty: none are."""
    keep_slower: float | None = None
    """Seconds from which on a call is kept as well."""
    keep_per_second: float = 20.0
    """Calls kept that way at most: while everything fails, the first ones say why."""

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError("the share of the calls to trace lies between 0 and 1")
        if self.keep_per_second <= 0 or (self.keep_slower is not None and self.keep_slower <= 0):
            raise ValueError("how many calls are kept in a second, and from how many seconds on, is more than 0")


class Sampling:
    """Decides twice about a call: when it begins, for the flag that goes on with it, and when its end is known."""

    def __init__(self, rules: SamplingRules, now: Callable[[], float] = time.monotonic) -> None:
        self._rules = rules
        self._bound = round(rules.ratio * _HALF)
        self._now = now
        self._allowance = self._most = max(1.0, rules.keep_per_second)
        self._at = now()
        self.withheld = 0
        """Calls that ended in a way worth keeping, over the rate."""

    @property
    def buffers(self) -> bool:
        """Whether a call that was not chosen may still be kept, so that its stages are to be remembered."""
        return bool(self._rules.keep_codes) or self._rules.keep_slower is not None

    def chosen(self, trace_id: int, parent: Parent | None) -> bool:
        """When the call begins."""
        if self._rules.follow_caller and parent is not None and parent.sampled is not None:
            return parent.sampled
        return trace_id % _HALF < self._bound

    def kept(self, code: grpc.StatusCode, seconds: float) -> str:
        """Of a call that was not chosen, when it has ended: what it is kept for, "error" or "slow"; "" for most."""
        slowest = self._rules.keep_slower
        if code in self._rules.keep_codes:
            why = "error"
        elif slowest is not None and seconds >= slowest:
            why = "slow"
        else:
            return ""
        now = self._now()
        self._allowance = min(self._most, self._allowance + (now - self._at) * self._rules.keep_per_second)
        self._at = now
        if self._allowance < 1:
            self.withheld += 1
            return ""
        self._allowance -= 1
        return why
