"""A part of `make bench-fleet`: replicas that follow a load up and down, by the service's own policy and fair queue.

Embedded engine, one process a replica, clips of 3 s. The load is 20 calls a second, for a minute 300, and 20 again. The policy
(engines/ray_serve/scaling.wanted) is asked twice a second for 2 to 20 replicas; a new one takes calls after START_SECONDS, one
that has to go gets no more and finishes those it has.
"""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from aligner_svc.engines.ray_serve.scaling import wanted
from aligner_svc.workers.fair_queue import FairQueue, Room

ALIGN_SECONDS: Final = 48e-3
"""Of a clip of 3 s: measured, one core."""
START_SECONDS: Final = 8.0
"""Until a replica has loaded its models: measured with Ray on one machine that was busy."""
LEAST, MOST, QUEUE = 2, 20, 64
TARGET, EVERY, UP_DELAY, DOWN_DELAY = 0.25, 0.5, 1.0, 10.0
"""Seconds, as in ray.queue_wait and app.application."""
LOADS: Final = ((30.0, 20.0), (60.0, 300.0), (60.0, 20.0))
"""Seconds, and calls a second."""
_ARRIVED, _DONE, _LOOKED = range(3)


@dataclass(eq=False)
class Replica:
    from_: float
    queue: FairQueue[float] = field(default_factory=lambda: FairQueue(QUEUE))
    busy: bool = False
    leaving: bool = False

    @property
    def calls(self) -> int:
        return len(self.queue) + self.busy


class Scaling:
    """One run. `waits`: (when the call came, seconds that it waited)."""

    def __init__(self) -> None:
        self._rng = random.Random(0)
        self._order = itertools.count()
        self._replicas = [Replica(0.0) for _ in range(LEAST)]
        self._since = {"up": 0.0, "down": 0.0}
        self._events: list[tuple[float, int, int, Replica | None]] = []
        self.waits: list[tuple[float, float]] = []
        self.steps: list[tuple[float, int]] = [(0.0, LEAST)]
        self.arrived = self.refused = 0

    def run(self) -> None:
        self._push(0.0, _ARRIVED)
        self._push(EVERY, _LOOKED)
        while self._events:
            now, _, kind, replica = heapq.heappop(self._events)
            if kind == _ARRIVED:
                self._arrive(now)
            elif kind == _DONE:
                assert replica is not None
                replica.busy = False
                self._begin(now, replica)
            else:
                self._scale(now)

    def _push(self, at: float, kind: int, replica: Replica | None = None) -> None:
        heapq.heappush(self._events, (at, next(self._order), kind, replica))

    def _arrive(self, now: float) -> None:
        rate = _rate(now)
        if rate is None:
            return
        self._push(now + self._rng.expovariate(rate), _ARRIVED)
        self.arrived += 1
        there = [one for one in self._replicas if one.from_ <= now and not one.leaving]
        replica = min(self._rng.choices(there, k=2), key=lambda one: one.calls)
        if len(replica.queue) >= QUEUE:
            self.refused += 1
            return
        replica.queue.add(now, "one", 1)
        self._begin(now, replica)

    def _begin(self, now: float, replica: Replica) -> None:
        if replica.busy:
            return
        for came in replica.queue.take(Room(10**9, 1)):
            self.waits.append((came, now - came))
            replica.busy = True
            self._push(now + ALIGN_SECONDS, _DONE, replica)
        if replica.leaving and not replica.busy:
            self._replicas.remove(replica)

    def _scale(self, now: float) -> None:
        if _rate(now) is None:
            return
        self._push(now + EVERY, _LOOKED)
        staying = [one for one in self._replicas if not one.leaving]
        running = [one for one in staying if one.from_ <= now]
        # What a replica reports is the wait of its oldest call: of a queue in turn, its length in calls.
        goal = wanted(len(staying), [len(one.queue) * ALIGN_SECONDS for one in running], [one.calls for one in running], TARGET)
        goal = min(max(goal, LEAST), MOST)
        for way, differs, delay in (("up", goal > len(staying), UP_DELAY), ("down", goal < len(staying), DOWN_DELAY)):
            if not differs:
                self._since[way] = now
            elif now - self._since[way] >= delay:
                self._since[way] = now
                self._change(now, staying, goal)

    def _change(self, now: float, staying: list[Replica], goal: int) -> None:
        for _ in range(goal - len(staying)):
            self._replicas.append(Replica(now + START_SECONDS))
        for replica in staying[goal:]:
            replica.leaving = True
            if not replica.calls:
                self._replicas.remove(replica)
        self.steps.append((now, goal))


def _rate(now: float) -> float | None:
    for seconds, rate in LOADS:
        if now < seconds:
            return rate
        now -= seconds
    return None


def scaling_table() -> None:
    one = Scaling()
    one.run()
    print(f"\n{LEAST} to {MOST} replicas of the embedded engine, {1 / ALIGN_SECONDS:.0f} calls a second each, a start takes 8 s")
    print("  seconds   calls/s  replicas   wait p50 p99 ms")
    begin = 0.0
    for seconds, rate in LOADS:
        for part in np.arange(begin, begin + seconds, 15):
            waits = [wait for came, wait in one.waits if part <= came < part + 15]
            count = [steps for at, steps in one.steps if at < part + 15][-1]
            p50, p99 = np.percentile(waits, (50, 99)) * 1e3
            print(f"  {part:3.0f}-{part + 15:3.0f}   {rate:7.0f}  {count:8}   {p50:8.0f} {p99:6.0f}")
        begin += seconds
    lost = one.arrived - one.refused - len(one.waits)
    print(f"  of {one.arrived} calls {one.refused} were refused, as a queue was full, and {lost} lost with a replica that went")
