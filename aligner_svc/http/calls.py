"""Runs calls in the chain of guards that gRPC's calls pass."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import status_pb2
from grpc import aio

from aligner_svc.http.context import HttpContext, Metadata
from aligner_svc.http.wire import Wire
from aligner_svc.rpc.status import DOMAIN
from interceptors import CallRefusedError, Chain
from interceptors.handlers.base import Wrapping
from interceptors.handlers.kinds import Handler

log = logging.getLogger("aligner_svc.http")


@dataclass(frozen=True, slots=True)
class HttpClient:
    """What is known of the client of a request. `identity` as in grpc.aio.ServicerContext.auth_context."""

    peer: str
    metadata: Metadata
    identity: Mapping[str, Iterable[bytes]]


class Calls:
    """`register`: adds the servicers to a server; here to a list of their handlers."""

    def __init__(self, guards: Iterable[Wrapping], register: Callable[[Any], None], timeout: float) -> None:
        """`guards`: outermost first. `timeout`: seconds for a call whose client names none."""
        methods = _Methods()
        register(methods)
        self._handlers = methods.handlers
        # A chain of its own, of the same guards: each keeps the handlers that it has wrapped, and gRPC's are other objects.
        self._chain = Chain(guards)
        self._timeout = timeout

    def streams(self, method: str) -> bool | None:
        """Whether a method has streams; None if it is not served."""
        handler = self._handlers.get(method)
        return None if handler is None else handler.request_streaming or handler.response_streaming

    async def serve(self, wire: Wire, client: HttpClient, on_lost: Callable[[Callable[[], None] | None], None]) -> None:
        """Run the call, and have `wire` send its answer. `on_lost`: given what to call if the client goes meanwhile.

        Raises ConnectionError if the client is gone.
        """
        given = wire.timeout
        timeout = self._timeout if given is None else given
        context = HttpContext(client.peer, client.metadata, client.identity, wire.read, timeout)
        # As gRPC does: a task with a context of its own for each call.
        task = asyncio.create_task(self._run(wire, context), context=contextvars.Context())
        timer = context.run(task)
        on_lost(context.end)
        try:
            await asyncio.wait({task})
        finally:
            on_lost(None)
            timer.cancel()
            if not task.done():
                context.end()
                await asyncio.wait({task})
        await wire.end(_status(task, context), context.trailing_metadata())

    async def _run(self, wire: Wire, context: HttpContext) -> None:
        """A call that was aborted has its status in `context`."""
        with contextlib.suppress(aio.AbortError):
            await self._handled(wire, context)

    async def _handled(self, wire: Wire, context: HttpContext) -> None:
        method = wire.method
        details = _Details(method, context.invocation_metadata())

        async def find(details: grpc.HandlerCallDetails) -> Handler | None:
            return self._handlers.get(details.method)

        handler: Any = await self._chain.intercept_service(find, details)  # Requests serves every method as a stream of bytes
        if not handler.response_streaming:
            await wire.send(await handler.stream_unary(None, context))
            return
        async with aclosing(handler.stream_stream(None, context)) as responses:
            async for response in responses:
                await wire.send(response)


def _status(task: asyncio.Task[None], context: HttpContext) -> status_pb2.Status | None:
    """How the call ended; None: well. Raises ConnectionError if nobody waits for it."""
    aborted = context.status()
    if aborted is not None:  # also from another task, such as the timer of a credential
        return aborted
    if task.cancelled():
        if context.expired:
            text = "the call's deadline has passed"
            return CallRefusedError(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXPIRED", text).status(DOMAIN)
        raise ConnectionAbortedError
    error = task.exception()
    if error is None:
        return None
    if isinstance(error, ConnectionError):  # an answer that could not be sent
        raise error
    # Recovery ends every call that fails with a status; this is a fault beyond it.
    log.error("a call failed outside of the guards", exc_info=error)
    return CallRefusedError(grpc.StatusCode.INTERNAL, "INTERNAL", "internal error").status(DOMAIN)


class _Details(grpc.HandlerCallDetails):
    """What interceptors are told of a call."""

    def __init__(self, method: str, metadata: Any) -> None:
        self.method = method
        self.invocation_metadata = metadata


class _Methods:
    """Takes what generated code gives to a server."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The same handlers as below, by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        self.handlers |= {f"/{service}/{name}": handler for name, handler in handlers.items()}
