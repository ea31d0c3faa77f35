"""Takes a device out of service when it fails, and back into service when it works again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

log = logging.getLogger(__name__)

V = TypeVar("V")

_MAX_CONSECUTIVE_FAILURES: Final = 3  # failed batches in a row, after which the device itself is checked

RECHECK_SECONDS: Final = (1.0, 60.0)
"""Pause before the first check of a failed device, doubled each time, and its upper bound."""


class Device:
    """Whether the device works: checked after too many failures in a row, and out of service until it passes."""

    def __init__(
        self,
        check: Callable[[], Awaitable[None]] | None,
        on_failed: Callable[[str | None], None] | None,
        on_change: Callable[[], None],
    ) -> None:
        """`check` and `on_failed` as in Batcher; `on_change` is called after each check of a device in service."""
        self.failed: str | None = None
        """Why the device is out of service; None: it is in service."""
        self.recheck_seconds = RECHECK_SECONDS
        self._check = check
        self._on_failed = on_failed
        self._on_change = on_change
        self._consecutive_failures = 0
        self._checking: asyncio.Task[bool] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def in_service(self) -> bool:
        """Whether a batch may start. Not during a check, which should have the device to itself."""
        return self.failed is None and self._checking is None

    def record_success(self) -> None:
        self._consecutive_failures = 0

    def record_failure(self) -> None:
        """A call of `run` failed as a whole, and not for lack of memory."""
        self._consecutive_failures += 1

    async def trusted(self) -> bool:
        """Whether the device may be given more work; checks it first after too many failures."""
        if self.failed is not None:
            return False
        if self._checking is None:
            if self._consecutive_failures < _MAX_CONSECUTIVE_FAILURES or self._check is None or self._closed:
                return True
            self._checking = asyncio.get_running_loop().create_task(self._check_device(self._check))
        checking = self._checking
        await asyncio.wait({checking})  # not awaited directly: `close` cancels it, and the slot must end in order
        return not checking.cancelled() and checking.result()

    async def close(self) -> None:
        self._closed = True
        await _cancel(self._checking)
        await _cancel(self._recovery)  # after the check, which may have started it

    async def _check_device(self, check: Callable[[], Awaitable[None]]) -> bool:
        try:
            self.failed = await self._fault(check)
            if self.failed is None:
                self._consecutive_failures = 0  # the items were bad, not the device
                return True
            log.error("the device is out of service: %s", self.failed)
            self._recovery = asyncio.get_running_loop().create_task(self._recover(check))
            notify(self._on_failed, self.failed)
            return False
        finally:
            self._checking = None
            self._on_change()

    async def _recover(self, check: Callable[[], Awaitable[None]]) -> None:
        pause, max_pause = self.recheck_seconds
        while self.failed is not None:
            await asyncio.sleep(pause)
            self.failed = await self._fault(check)
            pause = min(pause * 2, max_pause)
            if self.failed is not None:
                log.error("the device is still out of service: %s; next check in %.1f s", self.failed, pause)
        log.info("the device is back in service")
        self._consecutive_failures = 0
        notify(self._on_failed, None)

    async def _fault(self, check: Callable[[], Awaitable[None]]) -> str | None:
        try:
            await check()
        except asyncio.CancelledError:
            if self._closed:
                raise
            return "the check cancelled itself"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return None


def notify(observer: Callable[[V], None] | None, value: V) -> None:
    """Call an observer; its errors are logged, and do not fail the batch."""
    if observer is not None:
        try:
            observer(value)
        except Exception:
            log.exception("an observer of the batcher failed")


async def _cancel(task: asyncio.Task[Any] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait({task})
