"""Decides which calls are traced: a share of all, and of the others those that fail or are slow."""

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
"""The codes that are a server's error: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/, server spans."""

_HALF = 1 << 64


@dataclass(frozen=True, slots=True)
class SamplingRules:
    """`ratio`: share of the traces that begin here, 0..1, by the lower half of the trace id, so that all servers decide alike."""

    ratio: float = 0.1
    follow_caller: bool = True
    """Sample what the client samples. False if clients are not trusted with the cost; their trace ids are used anyway."""
    keep_codes: frozenset[grpc.StatusCode] = FAULTS
    """Calls that end with one of these are kept even if they were not sampled."""
    keep_slower: float | None = None
    """Seconds from which on a call is kept as well; None: never."""
    keep_per_second: float = 20.0
    """Upper bound of calls kept for either reason: while everything fails, the first ones show why."""

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError("ratio has to be between 0 and 1")
        if self.keep_per_second <= 0 or (self.keep_slower is not None and self.keep_slower <= 0):
            raise ValueError("keep_per_second and keep_slower have to be above 0")


class Sampling:
    """Decides when a call begins, for the flag that is passed on, and again when it has ended."""

    def __init__(self, rules: SamplingRules, now: Callable[[], float] = time.monotonic) -> None:
        self._rules = rules
        self._bound = round(rules.ratio * _HALF)
        self._now = now
        self._allowance = self._max_allowance = max(1.0, rules.keep_per_second)
        self._at = now()
        self.withheld = 0
        """Calls that would have been kept, but for `keep_per_second`."""

    @property
    def buffers(self) -> bool:
        """Whether stages of calls that are not sampled have to be recorded, because such a call may be kept."""
        return bool(self._rules.keep_codes) or self._rules.keep_slower is not None

    def chosen(self, trace_id: int, parent: Parent | None) -> bool:
        """Whether a call that begins is sampled."""
        if self._rules.follow_caller and parent is not None and parent.sampled is not None:
            return parent.sampled
        return trace_id % _HALF < self._bound

    def kept(self, code: grpc.StatusCode, seconds: float) -> str:
        """Why a call that was not sampled is kept after all, "error" or "slow"; "" if it is not."""
        slow = self._rules.keep_slower
        if code in self._rules.keep_codes:
            why = "error"
        elif slow is not None and seconds >= slow:
            why = "slow"
        else:
            return ""
        now = self._now()
        self._allowance = min(self._max_allowance, self._allowance + (now - self._at) * self._rules.keep_per_second)
        self._at = now
        if self._allowance < 1:
            self.withheld += 1
            return ""
        self._allowance -= 1
        return why
