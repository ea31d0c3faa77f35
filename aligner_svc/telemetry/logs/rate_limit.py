"""Rate limits for log lines: a token bucket for each event and a larger one for each level. Suppressed lines are counted."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_MAX_EVENTS = 1024
"""Events that have a bucket; a further one replaces the least recent. Callers may influence how many there are."""
_OTHERS = "others"


@dataclass(frozen=True, slots=True)
class LineRate:
    """`burst` lines at once, `per_second` after that."""

    per_second: float
    burst: int

    def __post_init__(self) -> None:
        if self.per_second <= 0 or self.burst < 1:
            raise ValueError("a rate has to let lines through")  # else an error could be suppressed for ever


ORDINARY = LineRate(20.0, 100)
LEVEL = LineRate(2000.0, 10_000)
"""For all events of a level: many different ones are a flood too. A flood at another level does not suppress errors."""


@dataclass(frozen=True, slots=True)
class Suppressed:
    """How often an event was suppressed since the last report."""

    logger: str
    level: int
    event: str
    count: int


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float

    def take(self, rate: LineRate, now: float) -> bool:
        self.tokens = min(float(rate.burst), self.tokens + max(0.0, now - self.at) * rate.per_second)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


_Key = tuple[str, int, str]


class LogLimit:
    """Thread-safe. `rates`: for every event of one logger, by its name. `now`: monotonic seconds."""

    def __init__(
        self,
        rates: Mapping[str, LineRate] | None = None,
        *,
        ordinary: LineRate = ORDINARY,
        level: LineRate = LEVEL,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rates = dict(rates or {})
        self._ordinary = ordinary
        self._level = level
        self._now = now
        self._lock = threading.Lock()
        self._events: OrderedDict[_Key, _Bucket] = OrderedDict()
        self._levels: dict[int, _Bucket] = {}
        self._counts: dict[_Key, int] = {}
        self.suppressed = 0
        """Lines suppressed since the start."""

    def passes(self, logger: str, level: int, event: str) -> bool:
        """Whether to write this line. `event`: its text without the arguments."""
        key, now = (logger, level, event), self._now()
        rate = self._rates.get(logger, self._ordinary)
        with self._lock:
            bucket = self._events.get(key)
            if bucket is None:
                bucket = self._events[key] = _Bucket(rate.burst, now)
                if len(self._events) > _MAX_EVENTS:
                    self._events.popitem(last=False)
            else:
                self._events.move_to_end(key)
            severity = min(logging.CRITICAL, level // 10 * 10)  # a custom level counts as the standard one below
            shared = self._levels.get(severity)
            if shared is None:
                shared = self._levels[severity] = _Bucket(self._level.burst, now)
            if bucket.take(rate, now) and shared.take(self._level, now):
                return True
            self.suppressed += 1
            if key not in self._counts and len(self._counts) >= _MAX_EVENTS:
                key = (_OTHERS, severity, _OTHERS)
            self._counts[key] = self._counts.get(key, 0) + 1
            return False

    def report(self) -> list[Suppressed]:
        """What was suppressed since the last report, most severe first."""
        with self._lock:
            taken, self._counts = self._counts, {}
        found = [Suppressed(*key, count) for key, count in taken.items()]
        return sorted(found, key=lambda one: (-one.level, -one.count, one.event))
