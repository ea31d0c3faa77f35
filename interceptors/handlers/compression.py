"""Compressed requests. gRPC's own decompression (grpc.per_message_decompression) is off: it would run before any guard.

gRPC does not say whether a message was compressed. One compressed with gzip shows it: its first byte, 0x1f, would begin a field
of wire type 7 in protobuf, which does not exist.
"""

from __future__ import annotations

import asyncio
import zlib

import grpc

from interceptors.calls.refusal import CallRefusedError

_GZIP = b"\x1f\x8b"
_WINDOW = 31
"""zlib's wbits for gzip."""
_INLINE = 1024
"""Compressed bytes that are expanded on the event loop: at most a megabyte, some 2 ms."""


def is_compressed(message: bytes) -> bool:
    """Whether it is gzip, and therefore no message of protobuf."""
    return message.startswith(_GZIP)


async def expanded(message: bytes, most: int) -> bytes:
    """The message, of at most `most` bytes. Raises CallRefusedError for a longer one, of which no more is expanded."""
    return _expanded(message, most) if len(message) <= _INLINE else await asyncio.to_thread(_expanded, message, most)


def _expanded(message: bytes, most: int) -> bytes:
    gzip = zlib.decompressobj(_WINDOW)
    try:
        expanded = gzip.decompress(message, most + 1)
    except zlib.error:
        expanded = b""
    if len(expanded) > most:
        raise too_large(f"more than {most}", most)
    if not gzip.eof or gzip.unused_data:
        text = "the request is not valid gzip"
        raise CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_MALFORMED", text)
    return expanded


def too_large(size: str, most: int) -> CallRefusedError:
    """`size`: its number of bytes."""
    message = f"the request has {size} bytes; at most {most} are accepted"
    return CallRefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE", message)
