"""The audio of a stream, read a chunk at a time and never whole."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import stat
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Protocol, cast

Audio = bytes | str | PathLike[str]
"""The audio, or the path of its file."""
StreamAudio = Audio | BinaryIO | Iterable[bytes]
AsyncStreamAudio = StreamAudio | AsyncIterable[bytes]

CHUNK_BYTES = 64 * 1024
"""Maximum audio bytes of a message; the API advises 16-64 KiB."""

WHOLE_BYTES = 10 << 20
"""Audio whose size is known is sent in one message up to here: the limit of servers unless they say otherwise."""

_HASHED_BYTES = 1 << 20
"""Read at a time for the digest."""

Read = Callable[[], bytes]
"""Returns the next chunk of at most CHUNK_BYTES, or b"" at the end. May block."""


@dataclass(frozen=True, slots=True)
class Digest:
    """Of all the audio: its `size` in bytes and its SHA-256 (32 bytes)."""

    size: int
    sha256: bytes


class Source(Protocol):
    """Audio that can be read once, or again if it is `rewindable`."""

    rewindable: bool

    def digest(self) -> Digest | None:
        """The digest of the audio, if it is known before it is sent: the server then detects an upload that was cut short.

        Call it before `start`. May block; raises OSError.
        """

    def start(self) -> Read:
        """Read from the beginning. From now on the `Read` of an earlier `start` returns b""."""


class FileSource:
    """A file, from its current position. Rewindable if it is seekable; a pipe is not.

    `complete`: the file is all there and may be read twice, first for its digest. If it is being appended to, only the part
    that was hashed is sent.
    """

    def __init__(self, file: BinaryIO, *, complete: bool = False) -> None:
        self._file = file
        self._complete = complete
        self._size: int | None = None
        # read(n) of a buffered pipe waits for n bytes; read1 returns what has arrived, as live audio needs.
        self._read = cast("Callable[[int], bytes | None]", getattr(file, "read1", file.read))
        self.rewindable = file.seekable()
        self._origin = file.tell() if self.rewindable else 0
        self._lock = threading.Lock()
        self._attempt = 0

    def digest(self) -> Digest | None:
        if not self._complete:
            return None
        sha256 = hashlib.sha256()
        self._size = 0
        while chunk := self._file.read(_HASHED_BYTES):
            sha256.update(chunk)
            self._size += len(chunk)
        self._file.seek(self._origin)
        return Digest(self._size, sha256.digest()) if self._size else None

    def start(self) -> Read:
        # gRPC may still be reading for the failed attempt on another thread: without the lock and the
        # number of the attempt, its last read would take a chunk from the new one.
        with self._lock:
            self._attempt += 1
            attempt = self._attempt
            if attempt > 1:
                self._file.seek(self._origin)
        sent = 0

        def read() -> bytes:
            nonlocal sent
            with self._lock:
                if attempt != self._attempt:
                    return b""
                chunk = self._read(CHUNK_BYTES if self._size is None else min(CHUNK_BYTES, self._size - sent))
            if chunk is None:
                raise BlockingIOError("the audio file is non-blocking and has nothing to read now")
            sent += len(chunk)
            return chunk

        return read


class IterableSource:
    """Chunks of any size from an iterable; large ones are cut. Read once."""

    rewindable = False

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._pieces = (piece for chunk in chunks for piece in _cut(chunk))

    def digest(self) -> None:
        return None

    def start(self) -> Read:
        return lambda: next(self._pieces, b"")


def _cut(chunk: bytes) -> Iterator[bytes]:
    """`chunk` in pieces of at most CHUNK_BYTES; none of an empty one, as b"" would mean the end."""
    for offset in range(0, len(chunk), CHUNK_BYTES):
        yield bytes(chunk[offset : offset + CHUNK_BYTES])


@contextmanager
def open_source(audio: StreamAudio) -> Iterator[Source]:
    """The source for what a caller may pass. Closes only what it opened itself. Raises OSError and TypeError."""
    _check_binary(audio)
    if isinstance(audio, str | PathLike):
        with Path(audio).open("rb") as file:
            yield FileSource(file, complete=stat.S_ISREG(os.fstat(file.fileno()).st_mode))
    elif isinstance(audio, bytes | bytearray | memoryview):
        yield FileSource(io.BytesIO(audio), complete=True)
    elif hasattr(audio, "read"):
        yield FileSource(cast("BinaryIO", audio))
    else:
        yield IterableSource(audio)


def _check_binary(audio: object) -> None:
    if isinstance(audio, io.TextIOBase):
        raise TypeError("the audio file is open as text: open it with mode 'rb'")


def known_size(audio: AsyncStreamAudio) -> int | None:
    """The bytes of `audio`, from its position if it is an open file; None if they are not known before they are read.

    Raises OSError, and TypeError for a file that was opened as text.
    """
    _check_binary(audio)
    if isinstance(audio, bytes | bytearray | memoryview):
        return memoryview(audio).nbytes
    if isinstance(audio, str | PathLike):
        found = Path(audio).stat()
        return found.st_size if stat.S_ISREG(found.st_mode) else None
    if isinstance(audio, io.IOBase) and audio.seekable():
        position = audio.tell()
        size = audio.seek(0, io.SEEK_END) - position
        audio.seek(position)
        return size
    return None


def read_whole(audio: Audio | BinaryIO) -> tuple[bytes, Digest]:
    """The audio of a unary call. Raises OSError."""
    if isinstance(audio, str | PathLike):
        data = Path(audio).read_bytes()
    elif isinstance(audio, io.IOBase):
        position = audio.tell()
        data = bytes(audio.read())
        audio.seek(position)  # should it have to be sent again, in chunks
    else:
        data = bytes(cast("bytes", audio))
    return data, Digest(len(data), hashlib.sha256(data).digest())


class _ThreadSource:
    """A `Source` read on threads: even a file on a disk may be slow, and a pipe is."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.rewindable = source.rewindable

    async def digest(self) -> Digest | None:
        return await asyncio.to_thread(self._source.digest)

    async def _chunks(self, read: Read) -> AsyncIterator[bytes]:
        while chunk := await asyncio.to_thread(read):
            yield chunk

    def start(self) -> AsyncIterator[bytes]:
        return self._chunks(self._source.start())


class _AsyncIterableSource:
    """Chunks of any size from an async iterable. Read once."""

    rewindable = False

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._chunks = chunks

    async def digest(self) -> None:
        return None

    async def start(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            for piece in _cut(chunk):
                yield piece


AsyncSource = _ThreadSource | _AsyncIterableSource


@contextmanager
def open_async_source(audio: AsyncStreamAudio) -> Iterator[AsyncSource]:
    """`open_source` for an event loop; the chunks may come from an async iterable too."""
    if isinstance(audio, AsyncIterable):
        yield _AsyncIterableSource(audio)
    else:
        with open_source(audio) as source:
            yield _ThreadSource(source)
