"""What a server uses over time, and whether that grows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.processes import memory, tree

_EVERY: Final = 1.0


@dataclass
class Use:
    """One figure over time: monotonic seconds and values."""

    name: str
    slack: float
    """What it may grow by in all without being called growth, beside its own noise."""
    seen: list[tuple[float, float]] = field(default_factory=list)

    def settled(self, since: float) -> Sequence[tuple[float, float]]:
        return [(at, value) for at, value in self.seen if at >= since]

    def growth(self, since: float) -> float:
        """By the slope of a line through the values, over the whole time."""
        points = self.settled(since)
        if len(points) < 3:
            return 0.0
        times, values = zip(*points, strict=True)
        return statistics.linear_regression(times, values).slope * (times[-1] - times[0])

    def noise(self, since: float) -> float:
        """Twice the standard deviation of the values around that line."""
        points = self.settled(since)
        if len(points) < 3:
            return 0.0
        times, values = zip(*points, strict=True)
        line = statistics.linear_regression(times, values)
        return 2 * statistics.pstdev(value - line.slope * at - line.intercept for at, value in points)

    def grows(self, since: float) -> bool:
        return self.growth(since) > self.noise(since) + self.slack


class Sampler:
    """Reads the figures of a tree of processes once a second, from `start` to `stop`."""

    def __init__(self, pid: int) -> None:
        self.figures = {
            "memory MB": Use("memory MB", 10.0),
            "descriptors": Use("descriptors", 4.0),
            "processes": Use("processes", 0.5),
            "threads": Use("threads", 4.0),
        }
        self._pid = pid
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            at, values = time.monotonic(), await asyncio.to_thread(self._read)
            for name, value in values.items():
                self.figures[name].seen.append((at, value))
            await asyncio.sleep(_EVERY)

    def _read(self) -> dict[str, float]:
        pids = tree(self._pid)
        return {
            "memory MB": memory(pids).pss,
            "descriptors": sum(_entries(pid, "fd") for pid in pids),
            "processes": len(pids),
            "threads": _entries(self._pid, "task"),
        }


def _entries(pid: int, what: str) -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/{what}"))  # noqa: PTH208 - names, not paths
    return 0
