"""Turns exceptions into statuses; no exception text ever reaches a client.

A refusal is sent as it is. Any other exception is a bug: logged with its traceback and sent as INTERNAL without its text.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from google.rpc import status_pb2
from grpc import aio

from interceptors.calls.abort import Metadata, abort
from interceptors.calls.call import Context, current_call
from interceptors.calls.refusal import CallRefusedError
from interceptors.handlers.base import Wrapping
from interceptors.handlers.kinds import Handler, wrapped

log = logging.getLogger(__name__)


class Recovery(Wrapping):
    """`domain`: of the ErrorInfo of every refusal.

    A call is aborted when its exception is no longer handled: gRPC keeps what `abort` raises until the next call of the method,
    and with it the exception and its frames would be kept, which hold the call's recording.
    """

    def __init__(self, domain: str) -> None:
        self._domain = domain

    def wrap(self, method: str, handler: Handler | None) -> Handler | None:
        """`handler`, whose exceptions become statuses."""
        if handler is None:
            return None

        async def unary(behaviour: Any, request: Any, context: Context) -> Any:
            try:
                return await behaviour(request, context)
            except (aio.AbortError, aio.BaseError):  # the status is already set
                raise
            except Exception as error:
                ending = self._ending(method, error)
            return await abort(context, *ending)

        async def stream(behaviour: Any, request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                async with aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        yield response
                return
            except (aio.AbortError, aio.BaseError):
                raise
            except Exception as error:
                ending = self._ending(method, error)
            await abort(context, *ending)

        return wrapped(handler, unary, stream)

    def _ending(self, method: str, error: Exception) -> tuple[status_pb2.Status, Metadata]:
        """What the client is sent of `error`."""
        if not isinstance(error, CallRefusedError):
            call = current_call()
            log.exception("%s failed, request %s", method, call.request_id if call else "unknown")
            error = CallRefusedError(grpc.StatusCode.INTERNAL, "INTERNAL", "internal error")
        return error.status(self._domain), error.metadata
