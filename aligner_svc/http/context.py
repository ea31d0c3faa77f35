"""What gRPC gives a handler of a call, for a call that came over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Never

import grpc
from google.rpc import status_pb2
from grpc import aio

from interceptors.calls.outcome import DETAILS

Metadata = Sequence[tuple[str, str | bytes]]


class HttpContext(aio.ServicerContext[Any, Any]):
    """Lives as long as its call. `end` cancels the call's task: its client has gone, or its deadline has passed."""

    protocol: Final = "http"
    """See interceptors.calls.call.Call."""

    def __init__(
        self,
        peer: str,
        metadata: Metadata,
        identity: Mapping[str, Iterable[bytes]],
        read: Callable[[], Awaitable[Any]],
        timeout: float,
    ) -> None:
        """`peer`: as gRPC writes it. `identity`: of the TLS peer. `read`: the next message in bytes, or grpc.aio.EOF.

        `timeout`: seconds to the deadline.
        """
        self._peer = peer
        self._metadata = tuple(metadata)
        self._identity = identity
        self._read = read
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + timeout
        self._trailing: Metadata = ()
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._ended = False
        self._task: asyncio.Task[None] | None = None

    def run(self, task: asyncio.Task[None]) -> asyncio.TimerHandle:
        """`task` serves the call. The timer of its deadline."""
        self._task = task
        return self._loop.call_at(self._deadline, self.end)

    def end(self) -> None:
        """Cancel the call. Idempotent."""
        self._ended = True
        if self._task is not None:
            self._task.cancel()

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return self._loop.time() >= self._deadline

    def status(self) -> status_pb2.Status | None:
        """That of a call that was aborted; None of one that was not."""
        if self._code in {None, grpc.StatusCode.OK}:
            return None
        assert self._code is not None
        for name, value in self._trailing:
            if name == DETAILS and isinstance(value, bytes):
                return status_pb2.Status.FromString(value)
        return status_pb2.Status(code=self._code.value[0], message=self._details)

    # What follows is grpc.aio's; `sent` values of trailing metadata are ours.

    async def read(self) -> Any:
        """The next message, or grpc.aio.EOF; that too, as with gRPC, if the client has gone."""
        try:
            return await self._read()
        except ConnectionError:
            self._ended = True
            return aio.EOF

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> Never:
        """End the call with a status. Raises AbortError; only the first one counts."""
        if self._code is None:
            self._code, self._details = code, details
            self._trailing = tuple(trailing_metadata) or self._trailing
        raise aio.AbortError("the call has been aborted")

    async def abort_with_status(self, status: grpc.Status) -> Never:
        await self.abort(status.code, status.details or "", status.trailing_metadata or ())

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._trailing = tuple(trailing_metadata)

    def trailing_metadata(self) -> Any:
        return self._trailing

    def invocation_metadata(self) -> Any:
        return self._metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def code(self) -> Any:
        return self._code

    def details(self) -> str:
        return self._details

    def peer(self) -> str:
        return self._peer

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self._identity

    def peer_identities(self) -> Iterable[bytes] | None:
        return None

    def peer_identity_key(self) -> str | None:
        return None

    def time_remaining(self) -> float:
        return max(0.0, self._deadline - self._loop.time())

    def cancelled(self) -> bool:
        return self._ended

    def done(self) -> bool:
        return self._ended or self._code is not None or (self._task is not None and self._task.done())

    async def write(self, message: Any) -> None:
        """Raises NotImplementedError: responses are what a handler yields, see interceptors.handlers.kinds."""
        raise NotImplementedError

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        raise NotImplementedError

    def set_compression(self, compression: grpc.Compression) -> None:
        """Answers are not compressed."""

    def disable_next_message_compression(self) -> None:
        """They never are."""
