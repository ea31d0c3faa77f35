"""Messages between the server and its Ray client, many at a time over one socket: frames with a number in their header."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from aligner_svc.errors import (
    AlignerError,
    DeadlineExpiredError,
    InvalidArgumentError,
    LimitExceededError,
    UnavailableError,
    UnsupportedError,
)
from aligner_svc.workers import frames
from aligner_svc.workers.frames import Buffer, FrameKind, JsonValue

_REFUSALS: Final[Mapping[str, type[AlignerError]]] = {
    kind.__name__: kind
    for kind in (DeadlineExpiredError, InvalidArgumentError, LimitExceededError, UnavailableError, UnsupportedError)
}


async def receive(reader: asyncio.StreamReader) -> tuple[FrameKind, dict[str, Any], bytes]:
    """The next frame. Raises FrameError, asyncio.IncompleteReadError."""
    kind, header_bytes, payload_bytes = frames.parse_prefix(await reader.readexactly(frames.PREFIX.size))
    header = frames.parse_header(await reader.readexactly(header_bytes))
    return kind, header, await reader.readexactly(payload_bytes)


def send(writer: asyncio.StreamWriter, kind: FrameKind, header: Mapping[str, JsonValue], payload: Buffer = b"") -> None:
    """Write a frame whole, so that those of several calls do not mix; the caller drains."""
    writer.writelines((frames.pack(kind, header, payload), payload))


def encode_refusal(error: AlignerError) -> dict[str, JsonValue]:
    """As data: an exception with required keyword arguments does not arrive through Ray."""
    field = error.violations[0].field if error.violations else None
    kind = next((name for name, known in _REFUSALS.items() if type(error) is known), UnavailableError.__name__)
    return {"kind": kind, "reason": error.reason, "message": error.message, "field": field, "retry_after": error.retry_after}


def decode_refusal(data: Mapping[str, Any]) -> AlignerError:
    """The error to raise."""
    kind = _REFUSALS.get(str(data["kind"]), UnavailableError)
    return kind(str(data["reason"]), str(data["message"]), field=data["field"], retry_after=data["retry_after"])
