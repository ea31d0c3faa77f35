"""A real server with one method of each kind behind the tracing, for its tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc import aio

from interceptors import CallRefusedError, Recovery, RequestId, Requests
from interceptors.calls.abort import abort_from_outside
from interceptors.calls.stages import stage
from interceptors.tracing.call_trace import CallTrace, Deliverable, current_span
from interceptors.tracing.interceptor import Tracing
from interceptors.tracing.sampling import Sampling, SamplingRules

SERVICE = "test.Kinds"
KINDS = ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream")
HEALTH = f"/{SERVICE}/Health"
SECRET = "hunter2"
_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]


@dataclass
class Kinds(grpc.GenericRpcHandler):
    """Does what a request says, in two stages, one within the other."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ids: list[str] = field(default_factory=list)
    """Of the span each answer was made in."""

    async def _act(self, deed: str, context) -> bytes:
        with stage("outer", bytes=len(deed)) as outer, stage("inner"):
            self.begun.set()
            span = current_span()
            self.ids.append(f"{span.trace}-{span.span}" if span is not None else "")
            outer.attributes["container"] = "wav"
            match deed:
                case "abort":
                    await context.abort(grpc.StatusCode.NOT_FOUND, "not here")
                case "refuse":
                    raise CallRefusedError(grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED", f"not you, {SECRET}")
                case "too late":
                    with suppress(asyncio.CancelledError):
                        await asyncio.sleep(60)
                    while context.time_remaining() > 0:  # noqa: ASYNC110 - a caller's own clock may end the call a moment early
                        await asyncio.sleep(0)
                    raise CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "TOO_SHORT", "it ended early")
                case "full":
                    raise CallRefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "full")
                case "fail":
                    raise ValueError(SECRET)
                case "expel":
                    status = status_pb2.Status(code=code_pb2.UNAUTHENTICATED, message="over")
                    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="SESSION_EXPIRED", domain="test"))
                    await abort_from_outside(context, status, asyncio.current_task())
                    await asyncio.sleep(60)
                case "hang":
                    await asyncio.sleep(60)
        return b"done"

    async def _unary(self, request, context):
        return await self._act(request.decode(), context)

    async def _to_stream(self, request, context):
        if request == b"endless":
            self.begun.set()
            while True:
                yield bytes(1 << 16)
        yield await self._act(request.decode(), context)

    async def _from_stream(self, requests, context):
        body = b""
        async for request in requests:
            body += request
            self.begun.set()
        return await self._act(body.decode(), context)

    async def _both(self, requests, context):
        yield await self._act(b"".join([request async for request in requests]).decode(), context)

    def service(self, details):
        return {
            f"/{SERVICE}/UnaryUnary": grpc.unary_unary_rpc_method_handler(self._unary),
            HEALTH: grpc.unary_unary_rpc_method_handler(self._unary),
            f"/{SERVICE}/UnaryStream": grpc.unary_stream_rpc_method_handler(self._to_stream),
            f"/{SERVICE}/StreamUnary": grpc.stream_unary_rpc_method_handler(self._from_stream),
            f"/{SERVICE}/StreamStream": grpc.stream_stream_rpc_method_handler(self._both),
        }.get(details.method)


@dataclass
class Delivered:
    """Keeps traces as they are delivered."""

    calls: asyncio.Queue[CallTrace] = field(default_factory=asyncio.Queue)
    others: list[Deliverable] = field(default_factory=list)

    def __call__(self, trace: Deliverable) -> None:
        if isinstance(trace, CallTrace):
            self.calls.put_nowait(trace)
        else:
            self.others.append(trace)

    async def one(self) -> CallTrace:
        return await asyncio.wait_for(self.calls.get(), 30)


def tracing(deliver, *, formats=("tracecontext",), principals=False, **rules) -> Tracing:
    served = {f"/{SERVICE}/{kind}" for kind in KINDS} | {HEALTH}
    sampling = Sampling(SamplingRules(**({"ratio": 1.0} | rules)))
    return Tracing(deliver, sampling, served=served, exempt={HEALTH}, formats=formats, principals=principals)


@asynccontextmanager
async def serving(*inner: aio.ServerInterceptor, kinds: Kinds | None = None) -> AsyncIterator[aio.Channel]:
    """`inner`: between the request id and the servicer."""
    server = aio.server(interceptors=(Recovery("test"), RequestId(), *inner, Requests()))
    server.add_generic_rpc_handlers((kinds or Kinds(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with aio.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS) as channel:
            yield channel
    finally:
        await server.stop(0)


def start(
    channel: aio.Channel, kind: str, deed: str = "answer", *metadata: tuple[str, str | bytes], timeout: float | None = None
):
    """The call object of any kind, its request sent."""
    path, body = f"/{SERVICE}/{kind}", deed.encode()
    match kind:
        case "UnaryStream":
            return channel.unary_stream(path)(body, metadata=metadata, timeout=timeout)
        case "StreamUnary":
            return channel.stream_unary(path)(iter([body]), metadata=metadata, timeout=timeout)
        case "StreamStream":
            return channel.stream_stream(path)(iter([body]), metadata=metadata, timeout=timeout)
    return channel.unary_unary(path)(body, metadata=metadata, timeout=timeout)


async def answer(call) -> bytes:
    if isinstance(call, aio.UnaryUnaryCall | aio.StreamUnaryCall):
        return await call
    return b"".join([response async for response in call])


async def ends(call) -> grpc.StatusCode:
    """How it ended, whatever that was."""
    with suppress(aio.AioRpcError, asyncio.CancelledError):
        await answer(call)
    return await call.code()
