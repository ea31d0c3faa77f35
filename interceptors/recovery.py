"""No exception text ever reaches a client.

An expected failure is told as the status its error describes; anything else is a bug,
logged with its traceback and told as INTERNAL without a word of it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from google.rpc import code_pb2
from grpc import aio

from interceptors.calls.abort import abort
from interceptors.calls.call import Context, current_call
from interceptors.calls.outcome import Describe
from interceptors.calls.refusal import CallRefusedError
from interceptors.handlers.base import CallInterceptor

log = logging.getLogger(__name__)


class Recovery(CallInterceptor):
    """`domain`: of the ErrorInfo in what the chain itself refuses."""

    def __init__(self, describe: Describe, domain: str) -> None:
        self._describe = describe
        self._domain = domain

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        try:
            yield
        except (aio.AbortError, aio.BaseError):  # the status is set already
            raise
        except CallRefusedError as refused:
            await abort(context, refused.status(self._domain), refused.metadata)
        except Exception as error:
            status = self._describe(error)
            if status.code == code_pb2.INTERNAL:
                call = current_call()
                log.exception("%s failed, request %s", method, call.request_id if call else "unknown")
            await abort(context, status)
