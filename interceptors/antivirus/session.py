"""One upload that is scanned while it comes in."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from interceptors.antivirus.clamav import CHUNK, ClamdStream, ScannerUnavailableError, TooLargeError
from interceptors.antivirus.verdicts import Verdict
from interceptors.calls.hooks import Buffer

if TYPE_CHECKING:
    from interceptors.antivirus.scanner import Antivirus

_INLINE_BYTES = 1 << 20


class ScanSession:
    """`async with`: feed, feed, ..., finish. Left before it is finished, its connection is dropped.

    clamd collects what it is sent and begins to look when it has all. What is saved by feeding is the way there; what is kept
    in memory is less than one chunk, and whoever feeds faster than clamd takes waits.

    An upload that clamd was lost to, or has no connection, is only hashed, and scanned when it is complete: a scanner
    that was restarted meanwhile costs no caller its upload, and `finish` alone says that there is no verdict.
    """

    def __init__(self, antivirus: Antivirus) -> None:
        self.size = 0
        """Bytes fed so far."""
        self._antivirus = antivirus
        self._hash = hashlib.sha256()
        self._pending = bytearray()
        self._connections = AsyncExitStack()
        self._stream: ClamdStream | None = None
        self._tried = False
        self._finished = False

    @property
    def sha256(self) -> str:
        """Of what was fed so far, in hexadecimal."""
        return self._hash.hexdigest()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._drop()

    async def feed(self, chunk: Buffer) -> None:
        """Raises TooLargeError, nothing else."""
        self.size += len(chunk)
        self._antivirus.check_size(self.size)
        if len(chunk) <= _INLINE_BYTES:
            self._hash.update(chunk)
        else:
            await asyncio.to_thread(self._hash.update, chunk)
        if self._tried and self._stream is None:
            return
        self._pending += chunk
        if len(self._pending) >= CHUNK:
            await self._pass_on()

    async def finish(self, content: Buffer) -> Verdict:
        """`content`: all that was fed, once more, for a scanner that has not got it. Raises as `Antivirus.scan`."""
        if self._finished or len(content) != self.size:
            raise ValueError("a session is finished once, with what it was fed")
        self._finished = True
        try:
            digest = self._hash.digest()
            verdict = self._antivirus.remembered(digest)
            if verdict is None and self._stream is not None:
                verdict = await self._last(digest)
            if verdict is None:
                await self._drop()  # before it waits for another
                self._antivirus.counts["afterwards"] += 1
                verdict = await self._antivirus.scan_unknown(content, digest)
            return verdict
        finally:
            await self._drop()

    async def _last(self, digest: bytes) -> Verdict | None:
        """The verdict on what clamd has been sent; None if the connection is not there any more."""
        await self._pass_on()
        stream = self._stream
        if stream is None:
            return None
        try:
            await stream.end()
        except (ScannerUnavailableError, TooLargeError):
            return None
        self._antivirus.counts["overlapped"] += 1
        async with self._antivirus.judging(digest) as judged:
            judged.append(await stream.verdict())
        return judged[0]

    async def _pass_on(self) -> None:
        """What is pending goes to clamd. Should it not take it, the whole is scanned in the end, and fails then if it must."""
        try:
            if not self._tried:
                self._tried = True
                if not self._antivirus.away and self._antivirus.pool.has_place:
                    self._stream = await self._connections.enter_async_context(self._antivirus.pool.upload())
            if self._stream is not None:
                await self._stream.send(self._pending)
        except (ScannerUnavailableError, TooLargeError) as error:
            await self._drop()
            if type(error) is ScannerUnavailableError:
                self._antivirus.lost(error)
        self._pending = bytearray()

    async def _drop(self) -> None:
        self._tried = True
        self._stream = None
        self._pending = bytearray()
        with contextlib.suppress(ScannerUnavailableError, TooLargeError):
            await self._connections.aclose()
