"""Counts messages behind all the other interceptors, next to the servicer.

Only there is a unary request told from a stream: further out every request is a stream of bytes (interceptors.handlers.requests).
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from interceptors.calls.call import Context
from interceptors.handlers.base import Handler, Wrapping

Tally: TypeAlias = Callable[[], None]


class MessageCounter(Wrapping):
    """Counts what the servicer is given and gives. A response counts once it is sent, not when it is made.

    `tallies`: of a method, called once for each message received, and sent.
    """

    def __init__(self, tallies: Callable[[str], tuple[Tally, Tally]]) -> None:
        self._tallies = tallies

    def wrap(self, method: str, handler: Handler | None) -> Handler | None:
        """The handler with its messages counted."""
        if handler is None:
            return None
        received, sent = self._tallies(method)

        def taken(request: Any) -> Any:
            if handler.request_streaming:
                return _Requests(request, received)
            received()
            return request

        if handler.response_streaming:
            inner: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream
            make = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
            if not inspect.isasyncgenfunction(inner):

                async def write(request: Any, context: Context) -> None:
                    await inner(taken(request), _Writing(context, sent))

                return make(write, handler.request_deserializer, handler.response_serializer)

            async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
                async with aclosing(inner(taken(request), context)) as responses:
                    async for response in responses:
                        yield response
                        sent()  # gRPC comes for the next one when this one is written

            return make(stream, handler.request_deserializer, handler.response_serializer)
        answer: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary
        make = grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler

        async def unary(request: Any, context: Context) -> Any:
            response = await answer(taken(request), context)
            sent()
            return response

        return make(unary, handler.request_deserializer, handler.response_serializer)


class _Requests:
    """A stream of requests, counted as they are taken from it."""

    __slots__ = ("_received", "_requests")

    def __init__(self, requests: AsyncIterator[Any], received: Tally) -> None:
        self._requests = aiter(requests)
        self._received = received

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Any:
        request = await anext(self._requests)
        self._received()
        return request


class _Writing:
    """The context of a handler that writes its responses by itself: grpc_health's Watch, for one."""

    __slots__ = ("_context", "_sent")

    def __init__(self, context: Context, sent: Tally) -> None:
        self._context = context
        self._sent = sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: Any) -> None:
        await self._context.write(message)
        self._sent()
