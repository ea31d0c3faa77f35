"""Uploads that are needed again: kept in unlinked temporary files, all of them together within a bound."""

from __future__ import annotations

import asyncio
import mmap
import os
import tempfile
from dataclasses import dataclass
from typing import BinaryIO

from aligner_svc.errors import UnavailableError
from aligner_svc.workers import Buffer

_BLOCK = 1 << 20
"""Bytes written at a time, by a thread: a disk may be slow."""


@dataclass(slots=True)
class SpoolRoom:
    """Bytes that all files together may still have."""

    left: int


class Spool:
    """One upload. Memory: less than 1 MiB. No other process can open the file, and none finds it after a crash."""

    def __init__(self, room: SpoolRoom) -> None:
        self.size = 0
        """Bytes so far."""
        self._room = room
        self._taken = 0
        self._pending = bytearray()
        self._file: BinaryIO | None = None
        self._written = 0

    async def add(self, chunk: Buffer) -> None:
        """Raises UnavailableError if there is no room for it, on the disk or within the bound."""
        if len(chunk) > self._room.left:
            raise _full()
        self._room.left -= len(chunk)
        self._taken += len(chunk)
        self.size += len(chunk)
        self._pending += chunk
        if len(self._pending) >= _BLOCK:
            await self.flush()

    async def flush(self) -> None:
        """Write what is left, before `read`. Raises as `add`."""
        pending, self._pending = self._pending, bytearray()
        if not pending and self._file is not None:
            return
        try:
            await asyncio.to_thread(self._write, pending)
        except OSError:
            raise _full() from None

    def read(self, at: int, size: int) -> bytes:
        """Up to `size` bytes from `at` on."""
        assert self._file is not None
        return os.pread(self._file.fileno(), size, at)

    async def content(self) -> memoryview:
        """All of it, mapped if it is in the file. Raises as `add`."""
        if self._file is None:
            return memoryview(self._pending)
        await self.flush()
        return memoryview(mmap.mmap(self._file.fileno(), self.size, prot=mmap.PROT_READ))

    def close(self) -> None:
        """Idempotent."""
        self._room.left += self._taken
        self._taken = 0
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _write(self, data: bytearray) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0, prefix="aligner-")  # noqa: SIM115 - closed by `close`
        view = memoryview(data)
        while view:
            count = os.pwrite(self._file.fileno(), view, self._written)
            self._written += count
            view = view[count:]


def _full() -> UnavailableError:
    message = "the server has no room on its disk for an upload of this kind right now, try again"
    return UnavailableError("DECODER_UNAVAILABLE", message, retry_after=5.0)
