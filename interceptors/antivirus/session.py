"""One upload on its way to clamd while it comes in."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Self, TypeAlias

from interceptors.antivirus.clamav import CHUNK, ClamdStream, ScannerUnavailableError, TooLargeError
from interceptors.antivirus.digest import off_loop
from interceptors.calls.hooks import Buffer

OpenStream: TypeAlias = Callable[[], AbstractAsyncContextManager[ClamdStream] | None]
"""A connection for an upload; None if none is free."""


class ScanSession:
    """Feed it, then have `Antivirus.finish` give the verdict. `async with` drops its connection at the end.

    clamd collects what it is sent and scans when it has all of it: what feeding saves is the transfer. Less than one chunk is
    kept in memory, and a sender that is faster than clamd waits for it.

    An upload whose connection broke, or that found none free, is only hashed, and scanned when it is complete: a clamd that
    was restarted meanwhile costs no caller its upload.
    """

    def __init__(
        self, check_size: Callable[[int], None], open_stream: OpenStream, lost: Callable[[ScannerUnavailableError], None]
    ) -> None:
        """`check_size` raises TooLargeError for more bytes than may be scanned. `lost` is called if clamd does not answer."""
        self.size = 0
        """Bytes fed so far."""
        self._check_size = check_size
        self._open_stream = open_stream
        self._lost = lost
        self._hash = hashlib.sha256()
        self._pending = bytearray()
        self._connections = AsyncExitStack()
        self._stream: ClamdStream | None = None
        self._tried = False

    @property
    def sha256(self) -> bytes:
        """Of what was fed so far."""
        return self._hash.digest()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drop()

    async def feed(self, chunk: Buffer) -> None:
        """Raises TooLargeError, nothing else."""
        self.size += len(chunk)
        self._check_size(self.size)
        await off_loop(self._hash.update, chunk)
        if self._tried and self._stream is None:
            return
        self._pending += chunk
        if len(self._pending) >= CHUNK:
            await self._send()

    async def end(self) -> ClamdStream | None:
        """The connection on which clamd has been sent everything; None if there is none, or not any more."""
        if self._stream is not None:
            await self._send()
        if self._stream is not None:
            try:
                await self._stream.end()
            except (ScannerUnavailableError, TooLargeError):
                return None
        return self._stream

    async def drop(self) -> None:
        """Give the connection back. What is fed afterwards is only hashed. Idempotent."""
        self._tried = True
        self._stream = None
        self._pending = bytearray()
        with contextlib.suppress(ScannerUnavailableError, TooLargeError):
            await self._connections.aclose()

    async def _send(self) -> None:
        """Send what is pending. If clamd does not take it, the whole is scanned at the end, and fails then if it has to."""
        try:
            if not self._tried:
                self._tried = True
                connection = self._open_stream()
                if connection is not None:
                    self._stream = await self._connections.enter_async_context(connection)
            if self._stream is not None:
                await self._stream.send(self._pending)
        except (ScannerUnavailableError, TooLargeError) as error:
            await self.drop()
            if type(error) is ScannerUnavailableError:
                self._lost(error)
        self._pending = bytearray()
