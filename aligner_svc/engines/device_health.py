"""Whether what runs the batches can still be relied on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

log = logging.getLogger(__name__)

V = TypeVar("V")

_DOUBT: Final = 3
"""Batches in a row without one good item, after which the device itself is examined."""

RECHECK_FIRST, RECHECK_MAX = 5.0, 60.0
"""Seconds between examinations of a failed device; doubled each time."""


class Device:
    """Whether the device can be relied on: examined after too many failures in a row, and out of service until it passes."""

    def __init__(
        self,
        check: Callable[[], Awaitable[None]] | None,
        on_failed: Callable[[str | None], None] | None,
        on_change: Callable[[], None],
        pauses: tuple[float, float],
    ) -> None:
        self.failed: str | None = None
        self._check = check
        self._on_failed = on_failed
        self._on_change = on_change
        self._pauses = pauses
        self._consecutive_failures = 0  # failures in a row
        self._examination: asyncio.Task[bool] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def in_service(self) -> bool:
        """Whether a batch may start. Not while it is examined: the canary should have it alone."""
        return self.failed is None and self._examination is None

    def worked(self) -> None:
        """An item succeeded."""
        self._consecutive_failures = 0

    def disappointed(self) -> None:
        """A call of `run` failed as a whole, and not for want of memory."""
        self._consecutive_failures += 1

    async def trusted(self) -> bool:
        """Whether the device may be given more. It is examined first where there is reason to doubt it."""
        if self.failed is not None:
            return False
        if self._examination is None:
            if self._consecutive_failures < _DOUBT or self._check is None or self._closed:
                return True
            self._examination = asyncio.get_running_loop().create_task(self._examine(self._check))
        examination = self._examination
        await asyncio.wait({examination})  # not awaited itself: `close` cancels it, and the lane has to end in order
        return not examination.cancelled() and examination.result()

    async def close(self) -> None:
        self._closed = True
        await _cancel(self._examination)
        await _cancel(self._recovery)  # only now: the examination may have begun it

    async def _examine(self, check: Callable[[], Awaitable[None]]) -> bool:
        try:
            self.failed = await self._fault(check)
            if self.failed is None:
                self._consecutive_failures = 0  # it was the items
                return True
            log.error("the device is out of service: %s", self.failed)
            self._recovery = asyncio.get_running_loop().create_task(self._recover(check))
            tell(self._on_failed, self.failed)
            return False
        finally:
            self._examination = None
            self._on_change()

    async def _recover(self, check: Callable[[], Awaitable[None]]) -> None:
        pause, longest = self._pauses
        while self.failed is not None:
            await asyncio.sleep(pause)
            self.failed = await self._fault(check)
            pause = min(pause * 2, longest)
            if self.failed is not None:
                log.error("the device is still out of service: %s; next look in %.1f s", self.failed, pause)
        log.info("the device is back in service")
        self._consecutive_failures = 0
        tell(self._on_failed, None)

    async def _fault(self, check: Callable[[], Awaitable[None]]) -> str | None:
        try:
            await check()
        except asyncio.CancelledError:
            if self._closed:
                raise
            return "the examination was cancelled from within"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return None


def tell(observer: Callable[[V], None] | None, news: V) -> None:
    """Observers are not worth a batch."""
    if observer is not None:
        try:
            observer(news)
        except Exception:
            log.exception("an observer of the batcher failed")


async def _cancel(task: asyncio.Task[Any] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait({task})
