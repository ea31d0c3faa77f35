"""Ends scans when clamd hangs: a process that is stopped keeps its connections, and says nothing on them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from interceptors.antivirus.clamav import Clamd, ScanFailedError, ScannerUnavailableError
from interceptors.antivirus.verdicts import Verdict
from interceptors.background import BackgroundTask

_SLOW = 2.0
"""Seconds after which a scan is a reason to ask whether clamd still takes commands."""
_EVERY = 1.0
"""Seconds between two looks at the scans in flight."""


class HangWatch:
    """Asks clamd while a scan is slow. With its default timeout of 5 s, scans end 8 s after it froze instead of 60 s."""

    def __init__(self, clamd: Clamd, on_hung: Callable[[ScannerUnavailableError], None]) -> None:
        self._clamd = clamd
        self._on_hung = on_hung
        self._in_flight: dict[asyncio.Timeout, float] = {}
        """Scans, with the event loop's time at which they began."""
        self._task = BackgroundTask(f"antivirus: the check whether clamd at {clamd.address} hangs", self._check, every=_EVERY)

    def start(self) -> None:
        self._task.start()

    async def close(self) -> None:
        """Idempotent."""
        await self._task.close()

    async def unless_hung(self, scanning: Awaitable[Verdict]) -> Verdict:
        """Raises as `scanning`, and ScanFailedError when clamd hangs: no upload may pass for that, as one may have caused it."""
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._in_flight[limit] = asyncio.get_running_loop().time()
                return await scanning
        except TimeoutError:
            raise ScanFailedError("it stopped answering during the scan") from None
        finally:
            self._in_flight.pop(limit, None)

    async def _check(self) -> None:
        now = asyncio.get_running_loop().time()
        if not any(now - began >= _SLOW for began in self._in_flight.values()):
            return
        try:
            await self._clamd.answers()
        except ScannerUnavailableError as error:
            self._on_hung(error)
            for limit in list(self._in_flight):
                limit.reschedule(now)
