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
from interceptors.calls.refusal import CallRefusedError
from interceptors.handlers.base import CallInterceptor

log = logging.getLogger(__name__)


class Recovery(CallInterceptor):
    """`domain`: of the ErrorInfo of every refusal."""

    def __init__(self, domain: str) -> None:
        self._domain = domain

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        try:
            yield
        except (aio.AbortError, aio.BaseError):  # the status is already set
            raise
        except CallRefusedError as refused:
            await abort(context, refused.status(self._domain), refused.metadata)
        except Exception:
            call = current_call()
            log.exception("%s failed, request %s", method, call.request_id if call else "unknown")
            bug = CallRefusedError(grpc.StatusCode.INTERNAL, "INTERNAL", "internal error")
            await abort(context, bug.status(self._domain))
