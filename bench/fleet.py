"""`make bench-fleet`: a simulation of many gateways and GPUs: what waits, who is served, and what is full first.

    python -m bench.fleet [--gateways 1000] [--gpus 10000] [--seconds 2] [--loads .3 .6 .9 1.2]

Discrete events; nothing runs but this process. Every call goes to a random gateway, waits for its event loop and is routed to the
less loaded of two random GPUs, by queue lengths as they are. A GPU takes batches from the service's own FairQueue. Parameters are
below, with where they come from; a load of 1 is what the gateways can pass. A second part gives 100 principals, one of which
sends as much as all others together, fewer GPUs than they ask for, and prints Jain's index of what each of them got over its
max-min fair share, without a quota and with one of calls in flight.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from aligner_svc.workers.fair_queue import FairQueue, Room
from bench.fleet_scaling import scaling_table

GATEWAY_SECONDS: Final = 2.9e-3
"""Processor time of a gateway's event loop for a call: measured with this service, a clip of 3 s, one core."""
BATCH_SECONDS, ITEM_SECONDS = 25e-3, 8.1e-3
"""A batch of N clips of 30 s takes 25 + 8.1 N ms on an H100: published for vllm-omni, not measured here."""
CLIP_SECONDS: Final = 30.0
MAX_BATCH: Final = 64
HOP_SECONDS: Final = 2e-3
"""From gateway to GPU and back: measured with Ray Serve over gRPC on one machine."""
STORE_COMMANDS: Final = 2
"""Scripts a call costs the quota store: the charge, and the lease of a place for calls in flight."""
STORE_RATE: Final = 11_000.0
"""Scripts a second of one Redis 7: measured, 32 in flight."""
QUEUE: Final = 256
"""Calls that may wait at a GPU; one more is refused."""
_ARRIVED, _ROUTED, _COMPUTED = range(3)


@dataclass(slots=True)
class Gpu:
    queue: FairQueue[int] = field(default_factory=lambda: FairQueue(QUEUE))
    computing: list[str] = field(default_factory=list)
    """Principals of the batch in it."""


@dataclass(slots=True)
class Result:
    """Seconds of waiting by call, and counts."""

    gateway_wait: list[float] = field(default_factory=list)
    queue_wait: list[float] = field(default_factory=list)
    served: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    batches: int = 0
    busy_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """`rate`: calls a second. `in_flight`: calls that each principal may have at the GPUs; None: any number."""

    rate: float
    gateways: int
    gpus: int
    seconds: float
    in_flight: int | None = None


class Simulation:
    """Calls arrive at random for `seconds`; what happens in the second half is counted."""

    def __init__(self, scenario: Scenario, principal: Callable[[], str] = lambda: "one") -> None:
        self._scenario = scenario
        self._principal = principal
        self._rng = random.Random(0)
        self._gpus = [Gpu() for _ in range(scenario.gpus)]
        self._loop_free = [0.0] * scenario.gateways
        self._calls = itertools.count()
        self._arrived: dict[int, tuple[str, float]] = {}  # principal and time of arrival at the GPU, by call
        self._in_flight: Counter[str] = Counter()
        self._events: list[tuple[float, int, int]] = [(0.0, _ARRIVED, 0)]  # time, kind, call or GPU
        self._result = Result()

    def run(self) -> Result:
        steps = {_ARRIVED: self._pass_gateway, _ROUTED: self._route, _COMPUTED: self._finish}
        while self._events[0][0] <= self._scenario.seconds:
            now, kind, subject = heapq.heappop(self._events)
            steps[kind](now, subject)
        return self._result

    def _counts(self, now: float) -> bool:
        return now > self._scenario.seconds / 2

    def _pass_gateway(self, now: float, _: int) -> None:
        """Event loops serve in order, so when a call comes to its GPU is known as it arrives."""
        gateway = self._rng.randrange(self._scenario.gateways)
        begin = max(now, self._loop_free[gateway])
        self._loop_free[gateway] = begin + GATEWAY_SECONDS
        if self._counts(now):
            self._result.gateway_wait.append(begin - now)
        heapq.heappush(self._events, (self._loop_free[gateway] + HOP_SECONDS / 2, _ROUTED, next(self._calls)))
        heapq.heappush(self._events, (now + self._rng.expovariate(self._scenario.rate), _ARRIVED, 0))

    def _route(self, now: float, call: int) -> None:
        pair = self._rng.randrange(self._scenario.gpus), self._rng.randrange(self._scenario.gpus)
        index = min(pair, key=lambda one: (len(self._gpus[one].queue), bool(self._gpus[one].computing)))
        gpu, who, most = self._gpus[index], self._principal(), self._scenario.in_flight
        if len(gpu.queue) >= QUEUE or (most is not None and self._in_flight[who] >= most):
            self._result.refused += 1
            return
        self._in_flight[who] += 1
        self._arrived[call] = who, now
        gpu.queue.add(call, who, 1)
        if not gpu.computing:
            self._start(now, index)

    def _start(self, now: float, index: int) -> None:
        gpu = self._gpus[index]
        for call in gpu.queue.take(Room(10**9, MAX_BATCH)):
            who, since = self._arrived.pop(call)
            gpu.computing.append(who)
            if self._counts(now):
                self._result.queue_wait.append(now - since)
                self._result.served[who] += 1
        if gpu.computing:
            took = BATCH_SECONDS + ITEM_SECONDS * len(gpu.computing)
            if self._counts(now):
                self._result.batches += 1
                self._result.busy_seconds += min(took, self._scenario.seconds - now)
            heapq.heappush(self._events, (now + took, _COMPUTED, index))

    def _finish(self, now: float, index: int) -> None:
        self._in_flight.subtract(self._gpus[index].computing)
        self._gpus[index].computing.clear()
        self._start(now, index)


def jain(shares: Sequence[float]) -> float:
    """1: all alike; 1 / n: one has everything."""
    values = np.asarray(shares, float)
    return float(values.sum() ** 2 / (len(values) * (values**2).sum()))


def fair_shares(demands: Sequence[float], capacity: float) -> list[float]:
    """Max-min fair: nobody gets more than asked, and what is left is divided among those who asked for more."""
    shares = dict.fromkeys(range(len(demands)), 0.0)
    waiting, left = sorted(shares, key=lambda index: demands[index]), capacity
    while waiting:
        index = waiting.pop(0)
        shares[index] = min(demands[index], left / (len(waiting) + 1))
        left -= shares[index]
    return [shares[index] for index in range(len(demands))]


def _wait(values: Sequence[float]) -> str:
    if not values:
        return "-"
    p50, p99 = np.percentile(values, (50, 99))
    return f"{p50 * 1e3:6.0f} {p99 * 1e3:6.0f}"


def load_table(gateways: int, gpus: int, seconds: float, loads: Sequence[float]) -> None:
    capacity = gateways / GATEWAY_SECONDS
    gpu_rate = gpus * MAX_BATCH / (BATCH_SECONDS + ITEM_SECONDS * MAX_BATCH)
    print(f"{gateways} gateways pass {capacity:,.0f} calls a second")
    print(f"{gpus} GPUs align {gpu_rate:,.0f} clips of {CLIP_SECONDS:.0f} s a second")
    print(f"one Redis has room for {STORE_RATE / STORE_COMMANDS:,.0f} calls a second\n")
    print("  load    calls/s  loop p50 p99 ms  queue p50 p99 ms  batch  GPUs busy  refused  Redis servers")
    for load in loads:
        rate = load * capacity
        one = Simulation(Scenario(rate, gateways, gpus, seconds)).run()
        batch = len(one.queue_wait) / max(1, one.batches)
        busy = one.busy_seconds / (gpus * seconds / 2)
        servers = rate * STORE_COMMANDS / STORE_RATE
        print(
            f"  {load:4.2f} {rate:10,.0f}    {_wait(one.gateway_wait)}    {_wait(one.queue_wait)}"
            f"  {batch:5.1f}  {busy:9.2f}  {one.refused:7}  {servers:13.1f}"
        )


def fairness_table(seconds: float) -> None:
    """100 principals; the last sends half of all calls. GPUs for two thirds of them."""
    principals, gpus = 100, 8
    capacity = gpus * MAX_BATCH / (BATCH_SECONDS + ITEM_SECONDS * MAX_BATCH)
    rate = 1.5 * capacity
    weights = [0.5 / (principals - 1)] * (principals - 1) + [0.5]
    names = [f"p{index}" for index in range(principals)]
    rng = random.Random(1)
    print(f"\n{principals} principals ask for 1.5 times what {gpus} GPUs can do, one of them for half of it, for {seconds:.0f} s")
    print("  calls in flight  Jain's index  the greedy one got  fair share  refused")
    for in_flight in (None, 64, 32):
        scenario = Scenario(rate, 50, gpus, seconds, in_flight)
        one = Simulation(scenario, lambda: rng.choices(names, weights)[0]).run()
        got = [one.served[name] / (seconds / 2) for name in names]
        fair = fair_shares([weight * rate for weight in weights], sum(got))
        index = jain([mine / due for mine, due in zip(got, fair, strict=True)])
        limit = "any" if in_flight is None else str(in_flight)
        print(f"  {limit:>15}  {index:12.3f}  {got[-1] / sum(got):18.3f}  {fair[-1] / sum(fair):10.3f}  {one.refused:7}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateways", type=int, default=1000)
    parser.add_argument("--gpus", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--loads", type=float, nargs="+", default=[0.3, 0.6, 0.9, 1.2])
    arguments = parser.parse_args()
    load_table(arguments.gateways, arguments.gpus, arguments.seconds, arguments.loads)
    fairness_table(20.0)
    scaling_table()


if __name__ == "__main__":
    main()
