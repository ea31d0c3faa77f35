"""How many calls may be worked on at a time, adapted to how long they wait. Pure: the caller passes the time.

After Envoy's gradient controller (https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/
adaptive_concurrency_filter) and Netflix's Gradient2 (https://github.com/Netflix/concurrency-limits), with one difference.
Both measure whole latencies, and have to find out what a call takes without a queue: by probing for a minimum, or by a
long-term average. Here the wait and the work of a call are measured separately, so each call gives its own reference, however
long its recording is: nothing is probed, nothing drifts. docs/overload.md has the formula and its reasons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

_MIN_GRADIENT = 0.5
"""A window lowers the limit to this share of it at most: one bad moment must not empty the server."""


@dataclass(frozen=True, slots=True)
class LimitRules:
    """Seconds and calls."""

    lowest: int = 4
    """Enough to keep every stage of the work busy."""
    highest: int = 256
    initial: int = 8
    target_wait: float = 0.25
    """Seconds of waiting that are accepted however short the work is."""
    tolerance: float = 1.0
    """Accepted waiting as a multiple of the work: one full batch, or one turn of every slot."""
    samples: int = 10
    """Calls of one window at least; half of the limit if that is more."""
    max_window: float = 10.0
    """Seconds after which three calls are enough."""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not 1 <= self.lowest <= self.initial <= self.highest:
            raise ValueError(f"1 <= lowest <= initial <= highest: {self.lowest}, {self.initial}, {self.highest}")
        if min(self.target_wait, self.max_window) <= 0 or self.tolerance < 0 or self.samples < 1:
            raise ValueError("target_wait, max_window and samples have to be above 0, tolerance not below")


class AdaptiveLimit:
    """The limit now, as `calls`. Memory: the samples of one window, `highest` / 2 at most."""

    def __init__(self, rules: LimitRules | None = None) -> None:
        self._rules = rules or LimitRules()
        self._limit = float(self._rules.initial)
        self._waits: list[float] = []
        self._work: list[float] = []
        self._peak = 0
        self._changed = self._opened = -math.inf
        self.typical_wait = 0.0
        """Median of the last window, seconds; also `typical_work`."""
        self.typical_work = 0.0

    @property
    def calls(self) -> float:
        """How many may be worked on at a time. Not rounded: shares are taken of it."""
        return self._limit

    @property
    def accepted_wait(self) -> float:
        """Seconds of waiting up to which the limit may grow, as of the last window."""
        return max(self._rules.target_wait, self._rules.tolerance * self.typical_work)

    def observe(self, waited: float, worked: float | None, *, since: float, now: float, at_work: int) -> None:
        """A call was served, or its deadline passed (`worked` None).

        `since`: when it was admitted; `at_work`: calls at work when it ended, itself included. Times in seconds, on one clock.
        """
        self._peak = max(self._peak, at_work)
        if since < self._changed:
            return  # the calls it waited behind were admitted under another limit
        if not self._waits:
            self._opened = now
        self._waits.append(max(0.0, waited))
        if worked is not None:
            self._work.append(max(0.0, worked))
        enough = len(self._waits) >= max(self._rules.samples, self._limit / 2)
        if enough or (len(self._waits) >= 3 and now - self._opened >= self._rules.max_window):
            self._conclude(now)

    def _conclude(self, now: float) -> None:
        rules = self._rules
        self.typical_wait = median(self._waits)
        if self._work:
            self.typical_work = median(self._work)
        gradient = min(1.0, max(_MIN_GRADIENT, self.accepted_wait / max(self.typical_wait, 1e-9)))
        before, needed = self._limit, self._peak >= self._limit / 2
        if gradient < 1.0:
            self._limit *= gradient
        if needed:  # a limit that is not nearly used must not grow
            self._limit += math.sqrt(before) / 2
        self._limit = min(float(rules.highest), max(float(rules.lowest), self._limit))
        self._waits.clear()
        self._work.clear()
        self._peak = 0
        if self._limit != before:
            self._changed = now
