"""How many connections to clamd there are at a time, and who may wait for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from interceptors.antivirus.clamav import Clamd, ClamdStream, ScanFailedError


class Pool:
    """At most `connections` at a time, half of which may be held by uploads that are still coming in.

    An upload lasts as long as its sender likes, a scan of what has arrived as long as clamd needs: senders that dawdle must
    not keep everybody else from being scanned. So uploads have places of their own, and whoever finds none taken there is
    scanned when it is complete.
    """

    def __init__(self, clamd: Clamd, connections: int, patience: float) -> None:
        """`connections`: 2 at least. `patience`: seconds a scan waits for its turn."""
        if connections < 2:
            raise ValueError("there are two connections to clamd at least")
        self.open = 0
        """Connections there are now."""
        self.max_open = 0
        """That there ever were."""
        self._clamd = clamd
        self._timeout = patience
        self._uploads = asyncio.Semaphore(connections // 2)
        self._scans = asyncio.Semaphore(connections - connections // 2)

    @property
    def has_place(self) -> bool:
        """Whether an upload that begins now would be given a connection."""
        return not self._uploads.locked()

    @asynccontextmanager
    async def scan(self) -> AsyncIterator[ClamdStream]:
        """For something complete. Raises ScanFailedError when there was no turn in time, and ScannerAwayError."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._scans.acquire()
        except TimeoutError:
            # Not "away": clamd is there, and a caller that keeps it busy must not have others pass unseen.
            raise ScanFailedError(f"no connection to it was free within {self._timeout:g} s") from None
        try:
            async with self._counted() as stream:
                yield stream
        finally:
            self._scans.release()

    @asynccontextmanager
    async def upload(self) -> AsyncIterator[ClamdStream]:
        """For something that comes in; ask `has_place` before. Raises ScannerAwayError."""
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
