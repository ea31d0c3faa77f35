"""The server's health and memory, and how a well-behaved caller fares, while it is attacked."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import memory, tree
from tests import PROJECT
from tests.kit.prod_process import ProdProcess
from tests.kit.waiting import eventually

_SAMPLE_EVERY = 0.25


@dataclass(frozen=True)
class Seen:
    """An answer. `at`: monotonic seconds, when it was asked for; `took`: milliseconds."""

    at: float
    took: float
    result: str


@dataclass
class Watch:
    """`memory`: monotonic seconds, and MB over idle of the server that has the most, with its workers.

    A page that n processes share is counted 1/n in each.
    """

    health: list[Seen] = field(default_factory=list)
    aligned: list[Seen] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)

    def slowest(self, since: float = 0.0) -> float:
        """Milliseconds of the longest health answer."""
        return max((one.took for one in self.health if one.at >= since), default=0.0)

    def peak(self, since: float = 0.0) -> float:
        """MB over idle."""
        return max((megabytes for at, megabytes in self.memory if at >= since), default=0.0)

    def unhealthy(self, since: float = 0.0) -> list[str]:
        """Every other answer than SERVING."""
        return [one.result for one in self.health if one.at >= since and one.result != "SERVING"]

    def refused(self, since: float = 0.0) -> list[str]:
        """What the well-behaved caller got in place of its words."""
        return [one.result for one in self.aligned if one.at >= since and one.result != "OK"]

    def p95(self, since: float = 0.0) -> float:
        """Milliseconds within which it got 95 of 100 answers."""
        took = sorted(one.took for one in self.aligned if one.at >= since)
        return took[int(len(took) * 0.95)] if took else 0.0


@asynccontextmanager
async def watching(probed: ProdProcess, key: Path, servers: Sequence[ProdProcess]) -> AsyncIterator[Watch]:
    """Of `probed`, which needs no client certificate, and the memory of all. `key`: file with an API key for it."""
    watch, idle = Watch(), _megabytes(servers)
    command = (sys.executable, "-m", "tests.attack.probe", probed.target, str(probed.home.folder / "ca.pem"), str(key))
    probe = await asyncio.create_subprocess_exec(
        *command, cwd=PROJECT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert probe.stdin is not None
    assert probe.stdout is not None

    async def read(lines: asyncio.StreamReader) -> None:
        async for line in lines:
            what, at, took, result = line.decode().split()
            {"health": watch.health, "align": watch.aligned}[what].append(Seen(float(at), float(took), result))

    async def sizes() -> None:
        while True:
            now = await asyncio.to_thread(_megabytes, servers)
            watch.memory.append((time.monotonic(), max(one - before for one, before in zip(now, idle, strict=True))))
            await asyncio.sleep(_SAMPLE_EVERY)

    sampling, reading = asyncio.create_task(sizes()), asyncio.create_task(read(probe.stdout))
    try:
        await eventually(lambda: watch.health and watch.aligned, "health and a first alignment")
        yield watch
    finally:
        sampling.cancel()
        probe.stdin.close()
        await probe.wait()
        await reading


def _megabytes(servers: Sequence[ProdProcess]) -> list[float]:
    return [memory(tree(server.pid)).pss for server in servers]
