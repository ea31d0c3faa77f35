"""Headers over the limits end a call before its body is read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc import aio

from interceptors.base import Context, Handler
from interceptors.refusal import RefusedError


class HeaderLimits(aio.ServerInterceptor):
    """Bounds on the number of metadata entries and on their bytes, names included.

    A unary handler runs once its body is parsed, however large; a rejecting handler that takes a
    stream and reads none of it answers at once.
    """

    def __init__(self, most_entries: int, most_bytes: int) -> None:
        self._most_entries = most_entries
        self._most_bytes = most_bytes

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]], details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Replace the handler of a call whose headers are too many or too large."""
        metadata = details.invocation_metadata or ()
        size = sum(len(name) + len(value) for name, value in metadata)
        if len(metadata) <= self._most_entries and size <= self._most_bytes:
            return await continuation(details)
        message = (
            f"the call has {len(metadata)} metadata entries of {size} bytes; "
            f"at most {self._most_entries} of {self._most_bytes} bytes are accepted"
        )

        async def refuse(requests: AsyncIterator[Any], context: Context) -> Any:
            raise RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "HEADERS_TOO_LARGE", message)

        return grpc.stream_unary_rpc_method_handler(refuse)
