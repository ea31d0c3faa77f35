"""The body of a request, part by part and never more than a call may send."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import grpc

from interceptors.calls.refusal import CallRefusedError
from interceptors.handlers.compression import too_large

UNLIMITED: Final = 1 << 62
_PARTS, _LEAST_PART = 4096, 128
"""Chunks after which they have to have so many bytes on average: those of one byte cost 10 us each."""


class Body:
    """Nothing of it is received before it is read, which happens within the guards."""

    def __init__(self, read: Callable[[], Awaitable[bytes]], declared: int | None) -> None:
        """`read`: the next part, empty at the end. `declared`: the Content-Length; None: sent in chunks."""
        self._read = read
        self._declared = declared

    async def parts(self, most: int) -> AsyncIterator[bytes]:
        """Raises CallRefusedError beyond `most` bytes, at once if they are declared; ConnectionError if the client goes."""
        if self._declared is not None and self._declared > most:
            raise too_large(str(self._declared), most)
        received = parts = 0
        while part := await self._read():
            received, parts = received + len(part), parts + 1
            if parts > _PARTS and received < parts * _LEAST_PART and most < UNLIMITED:
                raise malformed(f"the body comes in chunks of less than {_LEAST_PART} bytes")
            if received > most:
                raise too_large(f"more than {most}", most)
            yield part

    async def whole(self, most: int) -> bytes:
        """Raises like `parts`."""
        return b"".join([part async for part in self.parts(most)])


def malformed(message: str) -> CallRefusedError:
    """Of a body that is not what its Content-Type says."""
    return CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_MALFORMED", message)
