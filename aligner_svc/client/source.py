"""Where a stream's audio comes from, read a chunk at a time and never whole."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Protocol, cast

CHUNK_BYTES = 64 * 1024
"""Audio bytes a message carries at most; the API advises 16-64 KiB."""

Read = Callable[[], bytes]
"""The next chunk, at most CHUNK_BYTES of it; b"" at the end. May block."""


class Source(Protocol):
    """Audio that can be read once, or again where it is `rewindable`."""

    rewindable: bool

    def start(self) -> Read:
        """Read from the beginning. What an earlier `start` returned gives b"" from now on."""


class FileSource:
    """A file, from where it stands now. Rewindable when it is seekable; a pipe is not."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        # read(n) of a buffered pipe waits until n bytes are there; read1 passes on what has
        # come, which is what live audio needs.
        self._read = cast("Callable[[int], bytes | None]", getattr(file, "read1", file.read))
        self.rewindable = file.seekable()
        self._origin = file.tell() if self.rewindable else 0
        self._lock = threading.Lock()
        self._current = 0

    def start(self) -> Read:
        # gRPC may still be reading for the attempt that failed, on another thread: without
        # the lock and the number its last read would steal a chunk from the new attempt.
        with self._lock:
            self._current += 1
            mine = self._current
            if mine > 1:
                self._file.seek(self._origin)

        def read() -> bytes:
            with self._lock:
                if mine != self._current:
                    return b""
                chunk = self._read(CHUNK_BYTES)
            if chunk is None:
                raise BlockingIOError("the audio file is non-blocking and has nothing to read now")
            return chunk

        return read


class IterableSource:
    """Chunks of any size, as an iterable gives them; the large ones are cut. Read once."""

    rewindable = False

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = _cut(chunks)

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
        yield FileSource(file)


@contextmanager
def _caller_source(audio: BinaryIO | Iterable[bytes]) -> Iterator[Source]:
    yield FileSource(cast("BinaryIO", audio)) if hasattr(audio, "read") else IterableSource(audio)


def open_source(audio: bytes | str | PathLike[str] | BinaryIO | Iterable[bytes]) -> AbstractContextManager[Source]:
    """The source for what a caller may pass. Closes what it opened itself, and nothing else. Raises OSError."""
    if isinstance(audio, str | PathLike):
        return _path_source(Path(audio))
    if isinstance(audio, bytes | bytearray | memoryview):
        return _caller_source(io.BytesIO(audio))
    return _caller_source(audio)


def read_whole(audio: bytes | str | PathLike[str]) -> bytes:
    """The audio of a unary call. Raises OSError."""
    return Path(audio).read_bytes() if isinstance(audio, str | PathLike) else bytes(audio)
