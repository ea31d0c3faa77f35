"""The event loop's lag: what holds up the loop holds up every call."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from prometheus_client import CollectorRegistry, Histogram

EVERY: Final = 0.25
"""Seconds between two measurements: they cost 15 µs a second, and see one stall of 50 ms in five."""
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class LoopLag:
    """`start` on the loop to watch, then `close`."""

    def __init__(self, registry: CollectorRegistry, every: float = EVERY) -> None:
        what = "Seconds by which the event loop was late for a timer."
        self._lag = Histogram("aligner_event_loop_lag_seconds", what, buckets=_BUCKETS, registry=registry)
        self._every = every
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Idempotent."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._every
            await asyncio.sleep(self._every)
            # Timers are rounded to the clock's resolution, so it may be a hair early.
            self._lag.observe(max(0.0, loop.time() - due))
