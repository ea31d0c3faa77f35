"""The innermost of the chain: nothing of a request is read before every guard has let its call pass.

gRPC would receive a unary request whole, and parse it, before it runs the handler, however large it is and whatever client sent
it. On the wire a unary request is a stream of one message: served as one, it is not read before the servicer is reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, nullcontext, suppress
from types import MappingProxyType
from typing import Any

import grpc
from grpc import aio

from interceptors.calls.call import Call, Context, current_call
from interceptors.calls.refusal import CallRefusedError
from interceptors.handlers.base import Wrapping
from interceptors.handlers.compression import expanded, is_compressed, too_large
from interceptors.handlers.exempt import ExemptLimits
from interceptors.handlers.kinds import Handler, wrapped
from interceptors.handlers.pace import Pace, ReadTimes

Check = Callable[[Any], None]

_UNLIMITED = 1 << 62
_NO_METHODS: Mapping[str, int] = MappingProxyType({})


class Requests(Wrapping):
    """Reads and parses requests, and answers for methods that are not served, so that those calls pass the guards too."""

    def __init__(
        self,
        check: Check | None = None,
        times: ReadTimes | None = None,
        *,
        largest: Mapping[str, int] = _NO_METHODS,
        most: int = _UNLIMITED,
        exempt: ExemptLimits | None = None,
    ) -> None:
        """`check`: raises CallRefusedError for a parsed message that must not reach the servicer.

        `largest`: bytes of the largest valid message by method, `most` of the others', decompressed. `exempt`: limits of methods
        that anyone may call; compressed messages are accepted by the other methods only.
        """
        self._check = check
        self._times = times or ReadTimes()
        self._largest = largest
        self._most = most
        self._exempt = exempt

    def wrap(self, method: str, handler: Handler | None) -> Handler:
        """A handler that takes a stream of bytes, whatever the method takes."""
        if handler is None:
            return grpc.stream_unary_rpc_method_handler(_unknown_method)
        exempt = self._exempt if self._exempt is not None and method in self._exempt.methods else None
        most = self._largest.get(method, self._most)
        take = _Taking(handler.request_deserializer or bytes, self._check, self._times, most, exempt)
        request_of = take.stream if handler.request_streaming else take.only

        async def unary(behaviour: Any, requests: AsyncIterator[bytes], context: Context) -> Any:
            request = await request_of(context)
            try:
                return await behaviour(request, context)
            except NotImplementedError as error:
                raise _unimplemented(error, context) from None

        async def stream(behaviour: Any, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
            request = await request_of(context)
            with exempt.stream() if exempt is not None else nullcontext():
                try:
                    async with aclosing(behaviour(request, context)) as responses:
                        async for response in responses:
                            yield response
                except NotImplementedError as error:
                    raise _unimplemented(error, context) from None

        return wrapped(handler, unary, stream, raw=True)


async def _unknown_method(requests: AsyncIterator[bytes], context: Context) -> Any:
    raise _method_unknown()


def _unimplemented(error: NotImplementedError, context: Context) -> Exception:
    """What is raised for a method of a generated servicer that nobody has overridden: it sets the status and raises `error`."""
    return _method_unknown() if context.code() is grpc.StatusCode.UNIMPLEMENTED else error


def _method_unknown() -> CallRefusedError:
    return CallRefusedError(grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN", "this server has no such method")


class _Taking:
    """Parses the messages of one method, and has them checked, charged and scanned before the servicer sees them."""

    def __init__(
        self,
        deserialise: Callable[[bytes], Any],
        check: Check | None,
        times: ReadTimes,
        most: int,
        exempt: ExemptLimits | None,
    ) -> None:
        self._deserialise = deserialise
        self._check = check
        self._times = times
        self._most = most
        self._exempt = exempt

    async def only(self, context: Context) -> Any:
        """The one request of a unary call. Like gRPC itself, it does not look for a second."""
        call = current_call()
        admission = call.admission if call is not None else None
        if self._exempt is not None:
            raw: Any = await self._exempt.read(context)
        else:
            pace = Pace(self._times, whole=True)
            try:
                if admission is not None:
                    await admission.read(pace.end, whole=True)
                raw = await pace.read(context.read)
            finally:
                pace.close()
        if raw is not aio.EOF:
            message = await self._take(raw, call)
            if admission is not None:
                admission.arrived()
            return message
        if context.done():  # a client that disconnects looks like one that sent nothing
            raise asyncio.CancelledError
        text = "the call ended without a request"
        raise CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_MISSING", text)

    async def stream(self, context: Context) -> AsyncIterator[Any]:
        """The requests of a streaming call."""
        return self._stream(context)

    async def _stream(self, context: Context) -> AsyncIterator[Any]:
        call = current_call()
        admission = call.admission if call is not None else None
        pace = Pace(self._times, whole=False)
        try:
            if admission is not None:
                await admission.read(pace.end, whole=False)
            # Not from gRPC's own iterator: it refers to itself, and would keep an unfinished call until a garbage collection.
            while (raw := await pace.read(context.read)) is not aio.EOF:
                pace.received(len(raw))
                if admission is not None:
                    await admission.received(len(raw))
                yield await self._take(raw, call)
        finally:
            pace.close()
        if admission is not None and not context.done():
            admission.arrived()

    async def _take(self, raw: bytes, call: Call | None) -> Any:
        if call is not None:
            call.request_bytes += len(raw)
        try:
            if is_compressed(raw):
                raw = await self._expanded(raw)
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

    async def _expanded(self, raw: bytes) -> bytes:
        if self._exempt is None:
            return await expanded(raw, self._most)
        text = "this method takes no compressed requests"
        raise self._exempt.counted(CallRefusedError(grpc.StatusCode.UNIMPLEMENTED, "COMPRESSION_REFUSED", text))

    def _parse(self, raw: bytes) -> Any:
        if len(raw) > self._most:
            refused = too_large(str(len(raw)), self._most)
            raise refused if self._exempt is None else self._exempt.counted(refused)
        try:
            message = self._deserialise(raw)
        except Exception:  # whatever a deserialiser raises; protobuf's own errors quote the message
            text = "the request is not a valid message of its type; it may be compressed with gzip, and with nothing else"
            raise CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_MALFORMED", text) from None
        if self._check is not None:
            self._check(message)
        return message
