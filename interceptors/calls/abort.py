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
    """Never returns: gRPC raises AbortError. Trailing metadata set before (the request id) is sent too."""
    details = (DETAILS, status.SerializeToString())
    try:
        # gRPC would replace the trailing metadata by what abort is given.
        await context.abort(BY_NUMBER[status.code], status.message, (*(context.trailing_metadata() or ()), *metadata, details))
    except aio.AbortError as error:
        asyncio.get_running_loop().call_soon(_release, error)
        raise


def _release(error: aio.AbortError) -> None:
    """Once gRPC has caught it. It keeps the error in the state of the call, to which the frames of the traceback refer.

    Such a cycle would keep the call's buffers, its request included, until a full garbage collection.
    """
    error.__traceback__ = error.__context__ = None


async def abort_from_outside(
    context: Context, status: status_pb2.Status, task: asyncio.Task[object] | None, metadata: Metadata = ()
) -> None:
    """End a call from a task other than `task`, which serves it.

    The status is sent first: if `task` were only cancelled while gRPC is sending, no status would follow and the client would
    wait for ever.
    """
    with contextlib.suppress(aio.AbortError, aio.BaseError, asyncio.InvalidStateError):
        await abort(context, status, metadata)
    if task is not None:
        task.cancel()
