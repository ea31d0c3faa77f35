"""Turns exceptions into statuses; no exception text ever reaches a client.

A refusal is sent as it is. Any other exception is a bug: logged with its traceback and sent as INTERNAL without its text.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from grpc import aio

from interceptors.calls.abort import abort
from interceptors.calls.call import Context, current_call
from interceptors.calls.outcome import expired
from interceptors.calls.refusal import CallRefusedError
from interceptors.handlers.base import CallInterceptor

log = logging.getLogger(__name__)

_GRPC_LOG = "grpc._cython.cygrpc"

_EXPIRED = CallRefusedError(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXPIRED", "the call's deadline has passed")


class Recovery(CallInterceptor):
    """`domain`: of the ErrorInfo of every refusal."""

    def __init__(self, domain: str) -> None:
        self._domain = domain
        logging.getLogger(_GRPC_LOG).addFilter(_worth_a_line)  # the same filter is not added twice

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        try:
            yield
        except (aio.AbortError, aio.BaseError):  # the status is already set
            raise
        except CallRefusedError as refused:
            await self._refuse(context, refused)
        except Exception:
            call = current_call()
            log.exception("%s failed, request %s", method, call.request_id if call else "unknown")
            bug = CallRefusedError(grpc.StatusCode.INTERNAL, "INTERNAL", "internal error")
            await abort(context, bug.status(self._domain))

    async def _refuse(self, context: Context, refused: CallRefusedError) -> None:
        if expired(context, early=refused.code is grpc.StatusCode.UNAVAILABLE):
            # Whatever it was refused for: the client has stopped waiting, and some see our status and not their own.
            refused = _EXPIRED
        await abort(context, refused.status(self._domain), refused.metadata)


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Not: gRPC's traceback for a response or a status that came too late, because the client had gone or its deadline passed.

    gRPC tells this apart from a fault by a flag that it sets only afterwards; a deadline of a nanosecond is enough. How the call
    ended is in the access log and the metrics.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, aio.InternalError) and str(error).startswith('Failed "execute_batch"'))
