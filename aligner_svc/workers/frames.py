"""The frames that parent and child exchange: one kind byte, a JSON header, a raw payload.

On the wire: kind (u8), header length (u32), payload length (u64), big-endian, then the two.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Final, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
JsonValue: TypeAlias = bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"] | None

PREFIX: Final = struct.Struct("!BIQ")

MAX_HEADER: Final = 4 << 20
"""Bytes. Headers are parsed on the parent's event loop: 4 MiB take some 30 ms. Bulk data belongs in the payload."""

MAX_PAYLOAD: Final = 1 << 30
"""Bytes. Above both the largest upload (512 MiB) and four hours of 16 kHz int16 (461 MB)."""

SOCKET_BUFFER: Final = 4 << 20
"""Bytes requested from the kernel each way; it silently grants no more than net.core.wmem_max."""

_MIN_MAPPED: Final = 1 << 20


class FrameKind(IntEnum):
    READY = 1
    CALL = 2
    REPLY = 3
    FAILED = 4


class FrameError(Exception):
    """The other side broke the protocol."""


def pack(kind: FrameKind, header: Mapping[str, JsonValue], payload: Buffer) -> bytes:
    """All of a frame but its payload. Raises ValueError for a header that is no JSON or too long."""
    body = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    if len(body) > MAX_HEADER:
        raise ValueError(f"header of {len(body)} bytes, more than {MAX_HEADER}")
    return PREFIX.pack(kind, len(body), memoryview(payload).nbytes) + body


def parse_prefix(prefix: Buffer, max_payload: int = MAX_PAYLOAD) -> tuple[FrameKind, int, int]:
    """Kind, header bytes, payload bytes. Raises FrameError before anything is allocated for them."""
    number, header_bytes, payload_bytes = PREFIX.unpack(prefix)
    try:
        kind = FrameKind(number)
    except ValueError:
        raise FrameError(f"kind {number}") from None
    if header_bytes > MAX_HEADER or payload_bytes > max_payload:
        raise FrameError(f"frame of {header_bytes} + {payload_bytes} bytes")
    return kind, header_bytes, payload_bytes


def parse_header(body: Buffer) -> dict[str, JsonValue]:
    """The JSON object in `body`. Raises FrameError for anything else, including NaN and excessive nesting."""
    try:
        header = json.loads(bytes(body), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise FrameError("header is not JSON") from None
    if not isinstance(header, dict):
        raise FrameError("header is not an object")
    return header


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def allocate(size: int) -> memoryview:
    """`size` writable bytes; large buffers are mapped, so that pages are touched as they fill.

    `bytearray(100 MB)` clears them first: 40 ms in which an event loop does nothing else,
    and memory spent on a length that the other side merely claimed.
    """
    if size < _MIN_MAPPED:
        return memoryview(bytearray(size))
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
