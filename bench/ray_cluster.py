"""The embedded engine on a Ray cluster of this machine, beside the same engine in one process.

    make bench-ray                         all parts, some 5 minutes; ARGS="--only path" one of them

- path: what the way to a replica costs a clip of 5 s, without work and with it
- replicas: CPU of a call with two replicas and with one, and in one process with as many workers; what an idle cluster takes
- losses: calls lost while a replica is killed, a node is killed, and another release is rolled out; seconds to full strength
- head: the head and its node are killed; when calls end, and how long after the cluster is back they are served
- scaling: replicas under a load of 16 callers, and of one after that; calls lost
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np

from aligner_svc.config.engine import EngineSettings
from aligner_svc.domain import SAMPLE_RATE, Caller, Clip
from aligner_svc.engines.base import Engine
from aligner_svc.engines.pocketsphinx.engine import PocketSphinxEngine
from aligner_svc.engines.ray_serve import local
from aligner_svc.engines.ray_serve.engine import RayEngine, build
from aligner_svc.errors import AlignerError
from bench.processes import tree
from bench.ray_cpu import Cpu
from samples.request import SAMPLE
from tests.kit.ray_cluster import RayCluster, ray_cluster
from tests.kit.recordings import samples
from tests.kit.waiting import eventually

_SECONDS = 5.0
_TEXT = SAMPLE.with_suffix(".txt").read_text().strip()
_DEADLINE = 30.0
_PAUSE = 0.2  # seconds after a call that failed
_PATIENCE = 150.0  # seconds for what Ray has to do


def clip() -> Clip:
    """Five seconds of speech."""
    whole = samples()
    return Clip(np.resize(whole, int(_SECONDS * SAMPLE_RATE)))


class Load:
    """Calls of so many callers, one after the other each."""

    def __init__(self, engine: Engine, at_once: int) -> None:
        self._engine = engine
        self._at_once = at_once
        self._clip = clip()
        self.took: list[float] = []
        self.beside: list[float] = []
        """Seconds of each call that were not the work of the engine's process."""
        self.ended: list[float] = []
        self.lost: list[str] = []

    async def call(self) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            tokens = await self._engine.tokenise(_TEXT, "en")
            result = await self._engine.align(self._clip, tokens[:14], "en", Caller("bench", began + _DEADLINE))
            self.beside.append(clock() - began - result.busy)
        except AlignerError as error:
            self.lost.append(error.reason)
            await asyncio.sleep(_PAUSE)
        self.took.append(clock() - began)
        self.ended.append(time.monotonic())

    async def run(self, calls: int) -> float:
        """Seconds."""
        left = iter(range(calls))

        async def caller() -> None:
            for _ in left:
                await self.call()

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(self._at_once)))
        return time.perf_counter() - began

    async def until(self, stop: asyncio.Event) -> None:
        """As many as fit."""

        async def caller() -> None:
            while not stop.is_set():
                await self.call()

        await asyncio.gather(*(caller() for _ in range(self._at_once)))


async def through(cluster: RayCluster, work: Callable[[RayEngine, list[tuple[float, str | None]]], Awaitable[None]]) -> None:
    """`work` with an engine on the cluster, and what it says of it with the time."""
    said: list[tuple[float, str | None]] = []
    engine = build(cluster.settings, lambda why: said.append((time.monotonic(), why)), None)
    await engine.start()
    try:
        await Load(engine, 2).run(4)
        await work(engine, said)
    finally:
        await engine.close()


@asynccontextmanager
async def here(workers: int) -> AsyncIterator[PocketSphinxEngine]:
    """The engine in this process, warm."""
    engine = PocketSphinxEngine(EngineSettings(workers=workers, queue=200))
    await engine.start()
    try:
        await Load(engine, 2).run(4)
        yield engine
    finally:
        await engine.close()


def path() -> None:
    """The two take turns, call by call, so that other load slows both."""
    with ray_cluster(1, 1) as cluster:
        cluster.up(1)
        cluster.deploy()

        async def work(engine: RayEngine, _said: object) -> None:
            async with here(1) as alone:
                near, far = Load(alone, 1), Load(engine, 1)
                for _ in range(40):
                    await near.call()
                    await far.call()
            lane, took = engine.link.lane(""), list[float]()
            for _ in range(200):
                began = time.perf_counter()
                await lane.call({}, bytes(int(_SECONDS * SAMPLE_RATE) * 2), timeout=_DEADLINE, client="bench")
                took.append(time.perf_counter() - began)
            took.sort()
            print(f"there and back without work: p50 {took[100] * 1e3:.1f} ms, fastest {took[0] * 1e3:.1f} ms", flush=True)
            medians = [statistics.median(load.took) * 1e3 for load in (near, far)]
            beside = [statistics.median(load.beside) * 1e3 for load in (near, far)]
            print(
                f"a clip of {_SECONDS:g} s, one at a time: p50 {medians[0]:.1f} ms here, {medians[1]:.1f} ms through Ray; "
                f"beside the engine's process {beside[0]:.1f} and {beside[1]:.1f} ms, {beside[1] - beside[0]:+.1f} ms (goal 10)",
                flush=True,
            )

        asyncio.run(through(cluster, work))


_TURNS, _CALLS, _IDLE = 3, 30, 10.0


async def turn(engine: Engine, pids: Sequence[int]) -> dict[str, float]:
    """CPU milliseconds of a call, by the kind of process; "wall" of one, with eight callers."""
    before = Cpu(pids)
    seconds = await Load(engine, 8).run(_CALLS)
    return {kind: 1000 * spent / _CALLS for kind, spent in Cpu(pids).since(before).items()} | {"wall": 1000 * seconds / _CALLS}


def replicas() -> None:
    """Through Ray and in one process by turns, with as many engine processes each."""
    one, two = replicas_of(1), replicas_of(2)
    print(f"2 replicas over 1, if each has a core: {2 * one / two:.2f} (goal 1.8)")


def replicas_of(count: int) -> float:
    """CPU milliseconds of a call through Ray: medians of turns."""
    found: list[float] = []
    with ray_cluster(count, count) as cluster:
        cluster.up(count)
        cluster.deploy()

        async def work(engine: RayEngine, _said: object) -> None:
            async def elsewhere() -> list[int]:
                return [*engine.link.pool.pids, *await asyncio.to_thread(cluster.processes)]

            before, began = Cpu(await elsewhere()), time.monotonic()
            await asyncio.sleep(_IDLE)
            idle = sum(Cpu(await elsewhere()).since(before).values()) / (time.monotonic() - began)
            near, far = list[dict[str, float]](), list[dict[str, float]]()
            async with here(count) as alone:
                for _ in range(_TURNS):
                    there = await elsewhere()
                    near.append(await turn(alone, [pid for pid in tree(os.getpid()) if pid not in there]))
                    far.append(await turn(engine, [os.getpid(), *await elsewhere()]))
            print(f"{count} of it, idle: {1000 * idle:.0f} ms of CPU a second for the Ray client and the cluster")
            for name, each in (("in one process", near), ("through Ray", far)):
                parts = {kind: statistics.median(one.get(kind, 0.0) for one in each) for kind in each[0]}
                print(f"{count} of it, {name}, ms a call: " + ", ".join(f"{kind} {ms:.1f}" for kind, ms in parts.items()))
            sums = [statistics.median(sum(one.values()) - one["wall"] for one in each) for each in (near, far)]
            busy = sums[1] - idle * statistics.median(one["wall"] for one in far)
            print(
                f"{count} of it: {sums[0]:.0f} ms of CPU a call in one process, {sums[1]:.0f} through Ray, {busy:.0f} "
                f"without what Ray does when it idles: {sums[0] / sums[1]:.2f} (goal 0.9) and {sums[0] / busy:.2f}",
                flush=True,
            )
            found.append(sums[1])

        asyncio.run(through(cluster, work))
    return found[0]


def losses() -> None:
    with ray_cluster(2, 2) as cluster:
        cluster.up(1)
        cluster.join()
        cluster.deploy()

        async def under(engine: RayEngine, what: str, harm: Callable[[], None]) -> None:
            load, stop = Load(engine, 6), asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(load.until(stop))
                await eventually(lambda: len(load.took) >= 60, timeout=_PATIENCE)
                before, began = set(cluster.replicas()), time.monotonic()
                await asyncio.to_thread(harm)
                back = lambda: len(cluster.replicas()) == 2 and set(cluster.replicas()) != before  # noqa: E731
                await eventually(back, "two replicas", timeout=_PATIENCE)
                await asyncio.to_thread(wait_for_two, cluster)
                full = time.monotonic() - began
                await eventually(lambda: len(load.took) >= 300, timeout=_PATIENCE)
                stop.set()
            calls = f"{len(load.lost)} of {len(load.took)} calls lost"
            print(f"{what}: {calls}, slowest {max(load.took):.1f} s; full strength after {full:.1f} s", flush=True)

        def lose_node() -> None:
            cluster.kill_node()
            cluster.join()

        async def work(engine: RayEngine, _said: object) -> None:
            await under(engine, "a replica killed", lambda: os.kill(cluster.replicas()[0], signal.SIGKILL))
            await under(engine, "another release", lambda: cluster.deploy("2"))
            await under(engine, "a node killed, another one joins", lose_node)

        asyncio.run(through(cluster, work))


def wait_for_two(cluster: RayCluster) -> None:
    """Replicas that serve."""
    ray = cluster.settings.ray
    while local.status(ray.directory, ray.address, ray.application, wait=60).get("replicas") != {"RUNNING": 2}:
        time.sleep(0.2)


def head() -> None:
    with ray_cluster(1, 1) as cluster:
        cluster.up(1)
        cluster.deploy()

        async def work(engine: RayEngine, said: list[tuple[float, str | None]]) -> None:
            load, stop = Load(engine, 4), asyncio.Event()
            loading = asyncio.create_task(load.until(stop))
            await asyncio.sleep(2)
            killed = time.monotonic()
            await asyncio.to_thread(cluster.kill_head)
            await eventually(lambda: said[-1][1] is not None, timeout=_PATIENCE)
            noticed = said[-1][0] - killed
            await asyncio.sleep(15)
            await asyncio.to_thread(cluster.up, 1)
            await asyncio.to_thread(cluster.deploy)
            back = time.monotonic()
            await eventually(lambda: said[-1][1] is None, timeout=_PATIENCE)
            serving = said[-1][0] - back
            stop.set()
            await loading
            print(f"head killed: NOT_SERVING after {noticed:.1f} s, slowest call {max(load.took):.1f} s of {_DEADLINE:g} s, "
                  f"ends {sorted(set(load.lost))}; SERVING {serving:+.1f} s from the moment that the cluster was up")  # fmt: skip

        asyncio.run(through(cluster, work))


def scaling() -> None:
    with ray_cluster(1, 4) as cluster:
        cluster.up(4)
        cluster.deploy()

        async def work(engine: RayEngine, _said: object) -> None:
            load, stop = Load(engine, 16), asyncio.Event()
            loading = asyncio.create_task(load.until(stop))
            began = time.monotonic()
            seen = [(0.0, len(cluster.replicas()))]

            async def follow(seconds: float, goal: int) -> None:
                end = time.monotonic() + seconds
                while time.monotonic() < end and seen[-1][1] != goal:
                    if (count := len(cluster.replicas())) != seen[-1][1]:
                        seen.append((time.monotonic() - began, count))
                    await asyncio.sleep(0.2)

            await follow(40, 4)
            stop.set()
            await loading
            ended = time.monotonic() - began
            few, stop_few = Load(engine, 1), asyncio.Event()
            calling = asyncio.create_task(few.until(stop_few))
            await follow(60, 1)
            stop_few.set()
            await calling
            steps = ", ".join(f"{count} at {at:.0f} s" for at, count in seen)
            lost = f"{len(load.lost) + len(few.lost)} of {len(load.took) + len(few.took)} calls lost"
            print(f"16 callers for {ended:.0f} s, then one: replicas {steps}; {lost}", flush=True)

        asyncio.run(through(cluster, work))


PARTS = {part.__name__: part for part in (path, replicas, losses, head, scaling)}


def main() -> None:
    parser = argparse.ArgumentParser(description="The embedded engine on a Ray cluster of this machine.")
    parser.add_argument("--only", choices=PARTS, help="one part; default: all")
    only = parser.parse_args().only
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # its clusters end with it
    for name, part in PARTS.items():
        if only in {None, name}:
            part()


if __name__ == "__main__":
    main()
