"""Interceptors that wrap handlers, whatever kind of RPC these serve, and the chain of them.

What `around` does before its `yield` happens before the request is read: gRPC would receive a unary request whole before it runs
its handler, so the innermost of the chain (interceptors.handlers.requests) turns it into a stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, aclosing
from typing import Any, TypeAlias

import grpc
from grpc import aio

from interceptors.calls.call import Context
from interceptors.handlers.kinds import Handler, wrapped

Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"


class Wrapping(aio.ServerInterceptor, ABC):
    """An interceptor that does its work in the handlers it wraps."""

    @abstractmethod
    def wrap(self, method: str, handler: Handler | None) -> Handler | None:
        """Return the wrapped handler, or None if the method is not served."""

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler | None:
        """For an interceptor used alone; several are faster as a Chain."""
        return self.wrap(details.method, await continuation(details))


class Chain(aio.ServerInterceptor):
    """Interceptors as one, outermost first.

    gRPC asks every interceptor at every call for its handler. A service's handlers do not change, so the wrapped ones are kept.
    """

    _MAX_METHODS = 256

    def __init__(self, interceptors: Iterable[Wrapping]) -> None:
        self._inwards = tuple(interceptors)
        self._wrapped: dict[str, tuple[Handler, Handler | None]] = {}

    def __iter__(self) -> Iterator[Wrapping]:
        """Outermost first."""
        return iter(self._inwards)

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler | None:
        """The handler as all of them have wrapped it."""
        method, handler = details.method, await continuation(details)
        if handler is None:  # not kept: calls may name any method
            return self._wrap(method, None)
        known = self._wrapped.get(method)
        if known is not None and known[0] is handler:
            return known[1]
        wrapped = self._wrap(method, handler)
        if method in self._wrapped or len(self._wrapped) < self._MAX_METHODS:
            self._wrapped[method] = handler, wrapped
        return wrapped

    def _wrap(self, method: str, handler: Handler | None) -> Handler | None:
        for interceptor in reversed(self._inwards):
            handler = interceptor.wrap(method, handler)
        return handler


class CallInterceptor(Wrapping):
    """An interceptor that acts before and after a call."""

    @abstractmethod
    def around(self, method: str, context: Context) -> AbstractContextManager[None] | AbstractAsyncContextManager[None]:
        """Entered before the handler runs, left when it is done, with its exception if it raised one.

        Asynchronous only in a guard that has to wait: as generators, `contextmanager` takes 2 us a call, `asynccontextmanager` 7.
        """

    def wrap(self, method: str, handler: Handler | None) -> Handler | None:
        """`handler` inside of `around`."""
        if handler is None:
            return None

        async def unary(behaviour: Any, request: Any, context: Context) -> Any:
            around = self.around(method, context)
            if isinstance(around, AbstractContextManager):
                with around:
                    return await behaviour(request, context)
            async with around:
                return await behaviour(request, context)

        async def stream(behaviour: Any, request: Any, context: Context) -> AsyncIterator[Any]:
            around = self.around(method, context)
            async with AsyncExitStack() as stack:
                if isinstance(around, AbstractContextManager):
                    stack.enter_context(around)
                else:
                    await stack.enter_async_context(around)
                responses = await stack.enter_async_context(aclosing(behaviour(request, context)))
                async for response in responses:
                    yield response

        return wrapped(handler, unary, stream)
