"""`source.py` for an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from typing import BinaryIO, Protocol

from aligner_svc.client.source import Digest, Source, cut, open_source


class AsyncSource(Protocol):
    """`Source` whose chunks are awaited."""

    @property
    def rewindable(self) -> bool: ...

    async def digest(self) -> Digest | None: ...

    def start(self) -> AsyncIterator[bytes]: ...


class _ThreadSource:
    """A blocking source, read on a thread: even a file on a disk can take its time, a pipe surely does."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.rewindable = source.rewindable

    async def digest(self) -> Digest | None:
        return await asyncio.to_thread(self._source.digest)

    async def _chunks(self, read: Callable[[], bytes]) -> AsyncIterator[bytes]:
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
            for piece in cut(chunk):
                yield piece


@contextmanager
def open_async_source(
    audio: bytes | str | PathLike[str] | BinaryIO | Iterable[bytes] | AsyncIterable[bytes],
) -> Iterator[AsyncSource]:
    """`open_source` for asyncio, where the chunks may come from an async iterable too."""
    if isinstance(audio, AsyncIterable):
        yield _AsyncIterableSource(audio)
    else:
        with open_source(audio) as source:
            yield _ThreadSource(source)
