"""Background tasks, started, repeated and closed in one way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger("interceptors.background")


class Tasks:
    """Tasks that run to their end beside what started them. The event loop alone would let them be garbage-collected."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many have not ended."""
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` in a task of its own."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end, even if the task that waits for it is cancelled meanwhile."""
        await asyncio.shield(self.start(work))

    async def wait(self) -> None:
        """Until all have ended, however they end."""
        await asyncio.gather(*self._running, return_exceptions=True)


class BackgroundTask:
    """One task of the running event loop. `what` names it in the log when it fails: "the probe of redis://127.0.0.1"."""

    def __init__(self, what: str, work: Callable[[], Coroutine[Any, Any, None]], *, every: float | None = None) -> None:
        """`every`: seconds between two runs of `work`, and before the first; None: `work` is run once.

        An exception is logged with its traceback. It ends work that is run once, and is followed by the next run otherwise.
        """
        self._what = what
        self._work = work
        self._every = every
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Start the task, again if it has ended. Does nothing while it is running and after `close`."""
        if not self.running and not self._closed:
            self._task = asyncio.create_task(self._run())

    async def wait(self, max_seconds: float | None = None) -> None:
        """Wait until the task has ended, `max_seconds` at most. Cancelling the wait does not cancel the task."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=max_seconds)

    async def close(self) -> None:
        """Cancel the task and wait for its end. Idempotent."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        await self.wait()

    async def _run(self) -> None:
        while True:
            if self._every is not None:
                await asyncio.sleep(self._every)
            try:
                await self._work()
            except Exception:
                log.exception("%s failed", self._what)
            if self._every is None:
                return
