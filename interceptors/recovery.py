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
from interceptors.calls.outcome import expired
from interceptors.calls.refusal import CallRefusedError
from interceptors.handlers.base import Wrapping
from interceptors.handlers.kinds import Handler, wrapped

log = logging.getLogger(__name__)

_GRPC_LOG = "grpc._cython.cygrpc"

_EXPIRED = CallRefusedError(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXPIRED", "the call's deadline has passed")


class Recovery(Wrapping):
    """`domain`: of the ErrorInfo of every refusal.

    A call is aborted when its exception is no longer handled: gRPC keeps what `abort` raises until the next call of the method,
    and with it the exception and its frames would be kept, which hold the call's recording.
    """

    def __init__(self, domain: str) -> None:
        self._domain = domain
        logging.getLogger(_GRPC_LOG).addFilter(_worth_a_line)  # the same filter is not added twice

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
                ending = self._ending(method, error, context)
                _release(error)
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
                ending = self._ending(method, error, context)
                _release(error)
            await abort(context, *ending)

        return wrapped(handler, unary, stream)

    def _ending(self, method: str, error: Exception, context: Context) -> tuple[status_pb2.Status, Metadata]:
        """What the client is sent of `error`."""
        if not isinstance(error, CallRefusedError):
            call = current_call()
            log.exception("%s failed, request %s", method, call.request_id if call else "unknown")
            error = CallRefusedError(grpc.StatusCode.INTERNAL, "INTERNAL", "internal error")
        elif expired(context, early=error.code is grpc.StatusCode.UNAVAILABLE):
            # Whatever it was refused for: the client has stopped waiting, and some see our status and not their own.
            error = _EXPIRED
        return error.status(self._domain), error.metadata


def _release(error: BaseException | None) -> None:
    """Of an error whose call has ended, and of those that led to it, the tracebacks.

    A frame that still names the error it raised is a cycle, which would keep that frame's recording or request until a garbage
    collection: a flood of health checks of 11 MB kept 90 MB so.
    """
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Not two of gRPC's errors, each with a traceback, that any client can cause.

    A response or a status came too late, because the client had gone or its deadline passed: gRPC tells this apart from a fault
    by a flag that it sets only afterwards; a deadline of a nanosecond is enough. How the call ended is in the access log and the
    metrics. And a header that is no UTF-8, whose value gRPC quotes: it may be a secret.
    """
    if str(record.msg).startswith("Invalid encoding on"):
        return False
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, aio.InternalError) and str(error).startswith('Failed "execute_batch"'))
