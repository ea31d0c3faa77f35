"""The event loop's lag: what holds up the loop holds up every call."""

from __future__ import annotations

import asyncio
from typing import Final

from prometheus_client import CollectorRegistry, Histogram

from interceptors.background import BackgroundTask

EVERY: Final = 0.25
"""Seconds between two measurements: they cost 15 µs a second, and see one stall of 50 ms in five."""
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class LoopLag:
    """`start` on the loop to watch, then `close`."""

    def __init__(self, registry: CollectorRegistry, every: float = EVERY) -> None:
        what = "Seconds by which the event loop was late for a timer."
        self._lag = Histogram("aligner_event_loop_lag_seconds", what, buckets=_BUCKETS, registry=registry)
        self._every = every
        self._task = BackgroundTask("measuring the event loop's lag", self._watch)

    async def start(self) -> None:
        self._task.start()

    async def close(self) -> None:
        """Idempotent."""
        await self._task.close()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._every
            await asyncio.sleep(self._every)
            # Timers are rounded to the clock's resolution, so it may be a hair early.
            self._lag.observe(max(0.0, loop.time() - due))
