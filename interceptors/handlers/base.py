"""One wrapper for all kinds of RPC, so that no interceptor forgets streams.

A subclass says what happens around a call as one async context manager. The core tells the two
styles of response-streaming handlers apart by `isasyncgenfunction`, so each is wrapped in its own style.

What `around` does before its `yield` happens before the request is read: gRPC would receive a unary request
whole before it runs its handler, so the innermost of the chain (see interceptors.handlers.requests) turns it into a stream.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, TypeAlias

import grpc
from grpc import aio

from interceptors.calls.call import Context

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"


class Wrapping(aio.ServerInterceptor, ABC):
    """An interceptor whose work is done by the handlers it wraps."""

    @abstractmethod
    def wrap(self, method: str, handler: Handler | None) -> Handler | None:
        """What serves `method` in place of `handler`; None: nobody does."""

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler | None:
        """For one that stands by itself. Several are quicker as a Chain."""
        return self.wrap(details.method, await continuation(details))


class Chain(aio.ServerInterceptor):
    """Interceptors as one, outermost first.

    gRPC asks each of its interceptors anew at every call. A service's handlers stay the same, so what these make of
    them is made once.
    """

    _MOST = 256
    """Methods of a server."""

    def __init__(self, interceptors: Iterable[Wrapping]) -> None:
        self._inwards = tuple(interceptors)
        self._known: dict[str, tuple[Handler, Handler | None]] = {}

    def __iter__(self) -> Iterator[Wrapping]:
        """Outermost first."""
        return iter(self._inwards)

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler | None:
        """The handler as all of them have wrapped it."""
        method, handler = details.method, await continuation(details)
        if handler is None:  # not kept: calls may name what they like
            return self._wrap(method, None)
        known = self._known.get(method)
        if known is not None and known[0] is handler:
            return known[1]
        wrapped = self._wrap(method, handler)
        if method in self._known or len(self._known) < self._MOST:
            self._known[method] = handler, wrapped
        return wrapped

    def _wrap(self, method: str, handler: Handler | None) -> Handler | None:
        for interceptor in reversed(self._inwards):
            handler = interceptor.wrap(method, handler)
        return handler


class CallInterceptor(Wrapping):
    """Subclasses say what happens around a call."""

    @abstractmethod
    def around(self, method: str, context: Context) -> AbstractAsyncContextManager[None]:
        """Entered before the handler runs, left when it is done, with its exception if it raised one."""

    def wrap(self, method: str, handler: Handler | None) -> Handler | None:
        """`handler` with what happens around it."""
        if handler is None:
            return None
        if handler.response_streaming:
            inner: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream
            make = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
            if not inspect.isasyncgenfunction(inner):  # grpc_health's Watch, for one: a coroutine that writes by itself

                async def write(request: Any, context: Context) -> None:
                    async with self.around(method, context):
                        await inner(request, context)

                return make(write, handler.request_deserializer, handler.response_serializer)

            async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
                async with self.around(method, context), aclosing(inner(request, context)) as responses:
                    async for response in responses:
                        yield response

            return make(stream, handler.request_deserializer, handler.response_serializer)
        answer: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary
        make = grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler

        async def unary(request: Any, context: Context) -> Any:
            async with self.around(method, context):
                return await answer(request, context)

        return make(unary, handler.request_deserializer, handler.response_serializer)
