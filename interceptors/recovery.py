"""No exception text ever reaches a client.

An expected failure is told as the status its error describes; anything else is a bug,
logged with its traceback and told as INTERNAL without a word of it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
from google.rpc import code_pb2, status_pb2
from grpc import aio

from interceptors.base import CallInterceptor, Context

log = logging.getLogger(__name__)

Describe = Callable[[Exception], status_pb2.Status]
"""The status a failure is told as; INTERNAL for whatever is not expected."""
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Recovery(CallInterceptor):
    def __init__(self, describe: Describe) -> None:
        self._describe = describe

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        try:
            yield
        except (aio.AbortError, aio.BaseError):  # the status is set already
            raise
        except Exception as error:
            status = self._describe(error)
            if status.code == code_pb2.INTERNAL:
                log.exception("%s failed", method)
            metadata = (("grpc-status-details-bin", status.SerializeToString()),)
            await context.abort(_CODES[status.code], status.message, metadata)
