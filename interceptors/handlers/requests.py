"""The innermost of the chain: nothing of a request is read before every guard has let its call pass.

gRPC receives a unary request whole and parses it before it runs the handler, however large and whoever sent it. On the
wire a unary request is a stream of one message: served as one, it stays with the sender until the servicer's turn comes.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc
from grpc import aio

from interceptors.calls.call import Context, current_call
from interceptors.calls.refusal import CallRefusedError
from interceptors.handlers.base import Handler, Wrapping

_Parse = Callable[[bytes], Any]
Check = Callable[[Any], None]


class Requests(Wrapping):
    """Reads and parses requests, and answers for methods that nobody serves, so that those calls pass the guards too."""

    def __init__(self, check: Check | None = None) -> None:
        """`check`: raises RefusedError for a parsed message that nobody should act on."""
        self._check = check or _nothing

    def wrap(self, method: str, handler: Handler | None) -> Handler:
        """A handler that takes a stream of bytes, whatever the method is."""
        return grpc.stream_unary_rpc_method_handler(_unknown) if handler is None else _streaming(self._check, handler)


def _nothing(message: Any) -> None: ...


def _streaming(check: Check, handler: Handler) -> Handler:
    deserialise: _Parse = handler.request_deserializer or _as_it_is

    def parse(raw: bytes) -> Any:
        message = _parsed(deserialise, raw)
        check(message)
        return message

    def received(requests: AsyncIterator[bytes]) -> Any:
        return _parsed_stream(parse, requests)

    if handler.response_streaming:
        inner: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream
        if not inspect.isasyncgenfunction(inner):

            async def write(requests: AsyncIterator[bytes], context: Context) -> None:
                await inner(received(requests) if handler.request_streaming else await _only(parse, context), context)

            return grpc.stream_stream_rpc_method_handler(write, None, handler.response_serializer)

        async def stream(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
            request = received(requests) if handler.request_streaming else await _only(parse, context)
            async with aclosing(inner(request, context)) as responses:
                async for response in responses:
                    yield response

        return grpc.stream_stream_rpc_method_handler(stream, None, handler.response_serializer)
    answer: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary

    async def unary(requests: AsyncIterator[bytes], context: Context) -> Any:
        request = received(requests) if handler.request_streaming else await _only(parse, context)
        return await answer(request, context)

    return grpc.stream_unary_rpc_method_handler(unary, None, handler.response_serializer)


async def _unknown(requests: AsyncIterator[bytes], context: Context) -> Any:
    raise CallRefusedError(grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN", "this server has no such method")


async def _only(parse: _Parse, context: Context) -> Any:
    """The one request of a unary call. Like gRPC itself, it does not look for a second."""
    raw: Any = await context.read()
    if raw is not aio.EOF:
        return await _taken(parse, raw)
    if context.done():  # a caller that left looks like one that sent nothing
        raise asyncio.CancelledError
    message = "the call ended without a request"
    raise CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_MISSING", message)


def _as_it_is(raw: bytes) -> bytes:
    return raw


async def _taken(parse: _Parse, raw: bytes) -> Any:
    """A message that was parsed, and charged to its caller."""
    message = parse(raw)
    call = current_call()
    if call is None:
        return message
    call.request_bytes += len(raw)
    if call.meter is not None:
        await call.meter.received(len(raw), message)
    if call.scan is not None:
        await call.scan.received(message)
    return message


def _parsed(parse: _Parse, raw: bytes) -> Any:
    try:
        return parse(raw)
    except Exception:  # whatever a deserialiser raises; protobuf's own errors quote the message
        message = "the request is no valid message of its type"
        raise CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_MALFORMED", message) from None


async def _parsed_stream(parse: _Parse, requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for raw in requests:
        yield await _taken(parse, raw)
