"""Where a stream's audio comes from, read a chunk at a time and never whole."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Protocol, cast

CHUNK_BYTES = 64 * 1024
"""Audio bytes a message carries at most; the API advises 16-64 KiB."""

_HASHED_BYTES = 1 << 20
"""Read at a time for the digest."""

Read = Callable[[], bytes]
"""The next chunk, at most CHUNK_BYTES of it; b"" at the end. May block."""


@dataclass(frozen=True, slots=True)
class Digest:
    """Of all the audio: its `size` in bytes and its SHA-256 (32 bytes)."""

    size: int
    sha256: bytes


class Source(Protocol):
    """Audio that can be read once, or again where it is `rewindable`."""

    rewindable: bool

    def digest(self) -> Digest | None:
        """What is about to be sent, where that can be told before: so the server knows an upload that was cut short.

        Call it before `start`. May block; raises OSError.
        """

    def start(self) -> Read:
        """Read from the beginning. What an earlier `start` returned gives b"" from now on."""


class FileSource:
    """A file, from where it stands now. Rewindable when it is seekable; a pipe is not.

    `complete`: it is all there, and may be read twice to tell its digest. A file that is still being written is sent as
    far as it went then.
    """

    def __init__(self, file: BinaryIO, *, complete: bool = False) -> None:
        self._file = file
        self._complete = complete
        self._size: int | None = None
        # read(n) of a buffered pipe waits until n bytes are there; read1 passes on what has
        # come, which is what live audio needs.
        self._read = cast("Callable[[int], bytes | None]", getattr(file, "read1", file.read))
        self.rewindable = file.seekable()
        self._origin = file.tell() if self.rewindable else 0
        self._lock = threading.Lock()
        self._current = 0

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
        # gRPC may still be reading for the attempt that failed, on another thread: without
        # the lock and the number its last read would steal a chunk from the new attempt.
        with self._lock:
            self._current += 1
            mine = self._current
            if mine > 1:
                self._file.seek(self._origin)
        sent = 0

        def read() -> bytes:
            nonlocal sent
            with self._lock:
                if mine != self._current:
                    return b""
                chunk = self._read(CHUNK_BYTES if self._size is None else min(CHUNK_BYTES, self._size - sent))
            if chunk is None:
                raise BlockingIOError("the audio file is non-blocking and has nothing to read now")
            sent += len(chunk)
            return chunk

        return read


class IterableSource:
    """Chunks of any size, as an iterable gives them; the large ones are cut. Read once."""

    rewindable = False

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = _cut(chunks)

    def digest(self) -> None:
        return None

    def start(self) -> Read:
        return lambda: next(self._chunks, b"")


def _cut(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        yield from cut(chunk)


def cut(chunk: bytes) -> Iterator[bytes]:
    """`chunk` in pieces of at most CHUNK_BYTES; none of an empty one, as b"" would mean the end."""
    for offset in range(0, len(chunk), CHUNK_BYTES):
        yield bytes(chunk[offset : offset + CHUNK_BYTES])


@contextmanager
def _path_source(path: Path) -> Iterator[Source]:
    with path.open("rb") as file:
        yield FileSource(file, complete=stat.S_ISREG(os.fstat(file.fileno()).st_mode))


@contextmanager
def _bytes_source(audio: bytes | bytearray | memoryview) -> Iterator[Source]:
    yield FileSource(io.BytesIO(audio), complete=True)


@contextmanager
def _caller_source(audio: BinaryIO | Iterable[bytes]) -> Iterator[Source]:
    yield FileSource(cast("BinaryIO", audio)) if hasattr(audio, "read") else IterableSource(audio)


def open_source(audio: bytes | str | PathLike[str] | BinaryIO | Iterable[bytes]) -> AbstractContextManager[Source]:
    """The source for what a caller may pass. Closes what it opened itself, and nothing else. Raises OSError."""
    if isinstance(audio, str | PathLike):
        return _path_source(Path(audio))
    if isinstance(audio, bytes | bytearray | memoryview):
        return _bytes_source(audio)
    return _caller_source(audio)


def read_whole(audio: bytes | str | PathLike[str]) -> tuple[bytes, Digest]:
    """The audio of a unary call. Raises OSError."""
    data = Path(audio).read_bytes() if isinstance(audio, str | PathLike) else bytes(audio)
    return data, Digest(len(data), hashlib.sha256(data).digest())
