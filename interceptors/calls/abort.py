"""Ends a call with a google.rpc.Status."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from google.rpc import status_pb2
from grpc import aio

from interceptors.calls.call import Context
from interceptors.calls.outcome import BY_NUMBER, DETAILS

Metadata = Sequence[tuple[str, str]]


async def abort(context: Context, status: status_pb2.Status, metadata: Metadata = ()) -> None:
    """Never returns: gRPC raises AbortError. Metadata that is set already (the request id) goes out as well."""
    details = (DETAILS, status.SerializeToString())
    # gRPC would drop the trailing metadata for what abort is given.
    await context.abort(BY_NUMBER[status.code], status.message, (*(context.trailing_metadata() or ()), *metadata, details))


async def abort_from_outside(
    context: Context, status: status_pb2.Status, task: asyncio.Task[object] | None, metadata: Metadata = ()
) -> None:
    """For a task other than the one that serves the call, `task`.

    Cancelling that one alone would end it wherever it is, and while gRPC itself is sending, no status would follow: a
    client that waits for one waits for ever. So the status goes first.
    """
    with contextlib.suppress(aio.AbortError, aio.BaseError, asyncio.InvalidStateError):
        await abort(context, status, metadata)
    if task is not None:
        task.cancel()
