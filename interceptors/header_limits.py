"""Refuses calls with too many or too large headers, before any other guard reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from interceptors.calls.call import Context
from interceptors.calls.refusal import CallRefusedError
from interceptors.handlers.base import CallInterceptor


class HeaderLimits(CallInterceptor):
    """Limits the number of metadata entries and their bytes, names included."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes

    @contextmanager
    def around(self, method: str, context: Context) -> Iterator[None]:
        metadata = tuple(context.invocation_metadata() or ())
        size = sum(len(name) + len(value) for name, value in metadata)
        if len(metadata) > self._max_entries or size > self._max_bytes:
            message = (
                f"the call has {len(metadata)} metadata entries of {size} bytes; "
                f"at most {self._max_entries} of {self._max_bytes} bytes are accepted"
            )
            raise CallRefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "HEADERS_TOO_LARGE", message)
        yield
