"""Counts messages, innermost of the chain: only there does a unary request differ from a stream (see handlers.requests)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

from interceptors.calls.call import Context
from interceptors.handlers.base import Wrapping
from interceptors.handlers.kinds import Handler, wrapped

Tally: TypeAlias = Callable[[], None]


class MessageCounter(Wrapping):
    """Counts requests as the servicer receives them and responses once they are sent.

    `tallies`: for a method, the two functions called once for each message received, and sent.
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

        async def unary(behaviour: Any, request: Any, context: Context) -> Any:
            handling = behaviour(taken(request), context)
            del request  # it may be large, and the handler releases it
            response = await handling
            sent()
            return response

        async def stream(behaviour: Any, request: Any, context: Context) -> AsyncIterator[Any]:
            async with aclosing(behaviour(taken(request), context)) as responses:
                async for response in responses:
                    yield response
                    sent()  # gRPC asks for the next one when this one is written

        return wrapped(handler, unary, stream)


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
