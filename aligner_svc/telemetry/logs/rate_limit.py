"""No event floods the log: each has a bucket of its own, all of a level share a larger one, and what was left out is counted."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_MAX_EVENTS = 1024
"""Kinds of events that are told apart; further ones push out those that were quiet longest. Callers may be behind some."""
_OTHERS = "others"


@dataclass(frozen=True, slots=True)
class LineRate:
    """`burst` lines at once, `per_second` after that."""

    per_second: float
    burst: int

    def __post_init__(self) -> None:
        if self.per_second <= 0 or self.burst < 1:
            raise ValueError("a rate lets something through")  # else an error could be kept quiet for ever


ORDINARY = LineRate(20.0, 100)
LEVEL = LineRate(2000.0, 10_000)
"""Of all events of a level: many different ones are a flood too. Errors have a bucket that no flood of others empties."""


@dataclass(frozen=True, slots=True)
class Suppressed:
    """How often an event was left out since it was last told."""

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
    """From any thread. `rates`: of the events of one logger, by its name. `now` in seconds, monotonic."""

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
        self._suppressed: dict[_Key, int] = {}
        self._total = 0

    @property
    def suppressed(self) -> int:
        """Lines that were left out, since the start."""
        return self._total

    @property
    def pending(self) -> bool:
        """Whether `report` has something to tell."""
        return bool(self._suppressed)

    def passes(self, logger: str, level: int, event: str) -> bool:
        """Whether this one is to be written. `event`: what tells it from others, without what differs from time to time."""
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
            severity = min(logging.CRITICAL, level // 10 * 10)  # a level of somebody's own counts as the one below
            shared = self._levels.get(severity)
            if shared is None:
                shared = self._levels[severity] = _Bucket(self._level.burst, now)
            if bucket.take(rate, now) and shared.take(self._level, now):
                return True
            self._total += 1
            if key not in self._suppressed and len(self._suppressed) >= _MAX_EVENTS:
                key = (_OTHERS, severity, _OTHERS)
            self._suppressed[key] = self._suppressed.get(key, 0) + 1
            return False

    def report(self) -> list[Suppressed]:
        """What was left out since it was last asked, most severe first. Each is told once."""
        with self._lock:
            taken, self._suppressed = self._suppressed, {}
        told = [Suppressed(logger, level, event, count) for (logger, level, event), count in taken.items()]
        return sorted(told, key=lambda one: (-one.level, -one.count, one.event))
