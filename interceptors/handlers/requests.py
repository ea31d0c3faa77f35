"""The innermost of the chain: nothing of a request is read before every guard has let its call pass.

gRPC would receive a unary request whole, and parse it, before it runs the handler, however large it is and whatever client sent
it. On the wire a unary request is a stream of one message: served as one, it is not read before the servicer is reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any

import grpc
from grpc import aio

from interceptors.calls.call import Context, current_call
from interceptors.calls.hooks import Admission
from interceptors.calls.refusal import CallRefusedError
from interceptors.handlers.base import Wrapping
from interceptors.handlers.kinds import Handler, wrapped
from interceptors.handlers.pace import Pace, ReadTimes

Check = Callable[[Any], None]


class Requests(Wrapping):
    """Reads and parses requests, and answers for methods that are not served, so that those calls pass the guards too."""

    def __init__(self, check: Check | None = None, times: ReadTimes | None = None) -> None:
        """`check`: raises CallRefusedError for a parsed message that must not reach the servicer."""
        self._check = check
        self._times = times or ReadTimes()

    def wrap(self, method: str, handler: Handler | None) -> Handler:
        """A handler that takes a stream of bytes, whatever the method takes."""
        if handler is None:
            return grpc.stream_unary_rpc_method_handler(_unknown_method)
        take = _Taking(handler.request_deserializer or bytes, self._check, self._times)
        request_of = take.stream if handler.request_streaming else take.only

        async def unary(behaviour: Any, requests: AsyncIterator[bytes], context: Context) -> Any:
            return await behaviour(await request_of(requests, context), context)

        async def stream(behaviour: Any, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
            async with aclosing(behaviour(await request_of(requests, context), context)) as responses:
                async for response in responses:
                    yield response

        return wrapped(handler, unary, stream, raw=True)


async def _unknown_method(requests: AsyncIterator[bytes], context: Context) -> Any:
    raise CallRefusedError(grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN", "this server has no such method")


class _Taking:
    """Parses the messages of one method, and has them checked, charged and scanned before the servicer sees them."""

    def __init__(self, deserialise: Callable[[bytes], Any], check: Check | None, times: ReadTimes) -> None:
        self._deserialise = deserialise
        self._check = check
        self._times = times

    async def only(self, requests: AsyncIterator[bytes], context: Context) -> Any:
        """The one request of a unary call. Like gRPC itself, it does not look for a second."""
        pace = Pace(self._times, whole=True)
        admission = _admission()
        if admission is not None:
            await admission.read(pace.end, whole=True)
        raw: Any = await pace.read(context.read)
        if raw is not aio.EOF:
            message = await self._take(raw)
            if admission is not None:
                admission.arrived()
            return message
        if context.done():  # a client that disconnects looks like one that sent nothing
            raise asyncio.CancelledError
        text = "the call ended without a request"
        raise CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_MISSING", text)

    async def stream(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        """The requests of a streaming call."""
        return self._stream(requests, context)

    async def _stream(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        pace = Pace(self._times, whole=False)
        admission = _admission()
        if admission is not None:
            await admission.read(pace.end, whole=False)
        messages = aiter(requests)
        while (raw := await pace.read(lambda: anext(messages, None))) is not None:
            pace.received(len(raw))
            if admission is not None:
                await admission.received(len(raw))
            yield await self._take(raw)
        if admission is not None and not context.done():
            admission.arrived()

    async def _take(self, raw: bytes) -> Any:
        call = current_call()
        if call is not None:
            call.request_bytes += len(raw)
        try:
            message = self._parse(raw)
        except CallRefusedError:
            if call is not None and call.meter is not None:
                with suppress(CallRefusedError):  # what was received is charged, whatever it is
                    await call.meter.received(len(raw), None)
            raise
        if call is not None:
            if call.meter is not None:
                await call.meter.received(len(raw), message)
            if call.scan is not None:
                await call.scan.received(message)
        return message

    def _parse(self, raw: bytes) -> Any:
        try:
            message = self._deserialise(raw)
        except Exception:  # whatever a deserialiser raises; protobuf's own errors quote the message
            text = "the request is not a valid message of its type"
            raise CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_MALFORMED", text) from None
        if self._check is not None:
            self._check(message)
        return message


def _admission() -> Admission | None:
    call = current_call()
    return None if call is None else call.admission
