"""The connections to clamd: how many are open at a time, and what waits for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from interceptors.antivirus.clamav import Clamd, ClamdStream, ScanFailedError


class Pool:
    """At most `connections` at a time: half for uploads that are still coming in, half for complete ones.

    An upload lasts as long as its sender likes, a scan of a complete one as long as clamd needs: slow senders must not keep
    others from being scanned. An upload that finds no connection free is scanned when it is complete.
    """

    def __init__(self, clamd: Clamd, connections: int, timeout: float) -> None:
        """`connections`: 2 at least. `timeout`: seconds a scan waits for a free connection."""
        if connections < 2:
            raise ValueError("there are two connections to clamd at least")
        self.open = 0
        """Connections open now."""
        self.max_open = 0
        """Highest number so far."""
        self._clamd = clamd
        self._timeout = timeout
        self._uploads = asyncio.Semaphore(connections // 2)
        self._scans = asyncio.Semaphore(connections - connections // 2)

    @property
    def has_place(self) -> bool:
        """Whether an upload that begins now would get a connection."""
        return not self._uploads.locked()

    @asynccontextmanager
    async def scan(self) -> AsyncIterator[ClamdStream]:
        """For a complete upload. Raises ScanFailedError if no connection was free in time, and ScannerUnavailableError."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._scans.acquire()
        except TimeoutError:
            # Not ScannerUnavailableError, which may let uploads pass: a caller could keep clamd busy on purpose.
            raise ScanFailedError(f"no connection to it was free within {self._timeout:g} s") from None
        try:
            async with self._counted() as stream:
                yield stream
        finally:
            self._scans.release()

    @asynccontextmanager
    async def upload(self) -> AsyncIterator[ClamdStream]:
        """For an upload that comes in; check `has_place` first. Raises ScannerUnavailableError."""
        async with self._uploads, self._counted() as stream:
            yield stream

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[ClamdStream]:
        self.open += 1
        self.max_open = max(self.max_open, self.open)
        try:
            async with self._clamd.stream() as stream:
                yield stream
        finally:
            self.open -= 1
