"""The status a server sent, where grpc.aio overwrites it with its own.

When a server ends a stream before the client has half-closed (it refuses the call, or drains), the client's next write fails,
and grpcio (1.85.1 and before) then sets the call to INTERNAL "Internal error from Core", over the status it has received or
is about to receive. Measured on loopback: 160 of 400 refused uploads. The blocking API does not do this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc

from aligner_client.api.v1 import aligner_pb2 as pb

_T = TypeVar("_T")

_OVERWRITTEN = "Internal error from Core"

# When the write fails, the server's status is on its way: it is why the write failed.
_WAIT_SECONDS = 1.0
_POLL_SECONDS = 0.005


class ServerStatus:
    """The status of one call. Create it right after the call, before the event loop runs again."""

    def __init__(self, call: grpc.aio.StreamStreamCall[pb.StreamAlignRequest, pb.StreamAlignResponse]) -> None:
        self._call = call
        self._first: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._keep_first)

    async def original(self, error: grpc.RpcError) -> grpc.RpcError:
        """The server's status if `error` has overwritten it, else `error`."""
        if not _is_overwritten(error):
            return error
        if self._first is not None and not _is_overwritten(self._first):
            return self._first
        for _ in range(int(_WAIT_SECONDS / _POLL_SECONDS)):
            late = self._status()
            if not _is_overwritten(late):
                return late
            await asyncio.sleep(_POLL_SECONDS)
        return error

    def _keep_first(self, _: Any) -> None:
        self._first = self._status()

    def _status(self) -> grpc.aio.AioRpcError:
        call = self._call
        return grpc.aio.AioRpcError(
            _now(call.code()), _now(call.initial_metadata()), _now(call.trailing_metadata()), _now(call.details())
        )


def _is_overwritten(error: grpc.RpcError) -> bool:
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == _OVERWRITTEN


def _now(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine that does not wait, like those of a finished call; a task would read the status too late."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: _T = done.value
        return result
    coroutine.close()
    raise RuntimeError("the call is not finished")
