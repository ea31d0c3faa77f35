"""One wrapper for all kinds of RPC, so that no interceptor forgets streams.

A subclass says what happens around a call as one async context manager. The core tells the two
styles of response-streaming handlers apart by `isasyncgenfunction`, so each is wrapped in its own style.

What `around` does before its `yield` happens before the request is read: gRPC would receive a unary request
whole before it runs its handler, so the innermost of the chain (see interceptors.requests) turns it into a stream.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, Self, TypeAlias

import grpc
from grpc import aio

Context: TypeAlias = "aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Wrapped:
    """Handlers as an interceptor has wrapped them: gRPC asks at every call, and a service's handlers stay the same."""

    _MOST = 256
    """Methods of a server; what calls unknown ones name is not kept."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Handler, Handler]] = {}

    def get(self, method: str, handler: Handler, wrap: Callable[[str, Handler], Handler]) -> Handler:
        """`wrap(method, handler)`, or what it gave before for the same two."""
        known = self._known.get(method)
        if known is not None and known[0] is handler:
            return known[1]
        wrapped = wrap(method, handler)
        if method in self._known or len(self._known) < self._MOST:
            self._known[method] = handler, wrapped
        return wrapped


class CallInterceptor(aio.ServerInterceptor, ABC):
    """Subclasses say what happens around a call."""

    _wrapped: Wrapped

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """With room for its handlers, whatever the subclass does when it is made."""
        made = super().__new__(cls)
        made._wrapped = Wrapped()
        return made

    @abstractmethod
    def around(self, method: str, context: Context) -> AbstractAsyncContextManager[None]:
        """Entered before the handler runs, left when it is done, with its exception if it raised one."""

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]], details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Wrap the handler of one call; a method nobody serves has none."""
        handler = await continuation(details)
        return None if handler is None else self._wrapped.get(details.method, handler, self._wrap)

    def _wrap(self, method: str, handler: Handler) -> Handler:
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
