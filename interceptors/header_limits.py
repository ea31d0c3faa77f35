"""Headers over the limits end a call before anything reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from interceptors.calls.call import Context
from interceptors.calls.refusal import RefusedError
from interceptors.handlers.base import CallInterceptor


class HeaderLimits(CallInterceptor):
    """Bounds on the number of metadata entries and on their bytes, names included."""

    def __init__(self, most_entries: int, most_bytes: int) -> None:
        self._most_entries = most_entries
        self._most_bytes = most_bytes

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        metadata = tuple(context.invocation_metadata() or ())
        size = sum(len(name) + len(value) for name, value in metadata)
        if len(metadata) > self._most_entries or size > self._most_bytes:
            message = (
                f"the call has {len(metadata)} metadata entries of {size} bytes; "
                f"at most {self._most_entries} of {self._most_bytes} bytes are accepted"
            )
            raise RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "HEADERS_TOO_LARGE", message)
        yield
