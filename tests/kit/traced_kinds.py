"""A real server with one method of each kind behind the tracing, for its tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc import aio

from interceptors import CallRefusedError, Recovery, RequestId, Requests, Wrapping
from interceptors.calls.abort import abort_from_outside
from interceptors.calls.stages import stage
from interceptors.tracing.call_trace import CallTrace, Deliverable, current_span
from interceptors.tracing.interceptor import Tracing
from interceptors.tracing.sampling import Sampling, SamplingRules
from tests.kit import chain_server as chain_server_kit
from tests.kit.chain_server import KINDS, SERVICE, KindsHandler, answer, chain_server
from tests.kit.waiting import eventually, forever

HEALTH = f"/{SERVICE}/Health"
SECRET = "hunter2"


@dataclass
class Kinds(KindsHandler):
    """Does what a request says, in two stages, one within the other."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ids: list[str] = field(default_factory=list)
    """Of the span each answer was made in."""

    async def act(self, request, context) -> bytes:
        deed = request.decode()
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
                        await forever()
                    # A client's own clock may end the call a moment early.
                    await eventually(lambda: context.time_remaining() <= 0)
                    raise CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "TOO_SHORT", "it ended early")
                case "full":
                    raise CallRefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "full")
                case "fail":
                    raise ValueError(SECRET)
                case "expel":
                    status = status_pb2.Status(code=code_pb2.UNAUTHENTICATED, message="over")
                    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="SESSION_EXPIRED", domain="test"))
                    await abort_from_outside(context, status, asyncio.current_task())
                    await forever()
                case "hang":
                    await forever()
        return b"done"

    async def unary_stream(self, request, context):
        while request == b"endless":
            self.begun.set()
            yield bytes(1 << 16)
        yield await self.act(request, context)

    async def stream_unary(self, requests, context):
        async def noted():
            async for request in requests:
                self.begun.set()
                yield request

        return await super().stream_unary(noted(), context)

    def unary_methods(self):
        return {"Health": self.unary_unary}


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
async def serving(*inner: Wrapping, kinds: Kinds | None = None) -> AsyncIterator[aio.Channel]:
    """`inner`: between the request id and the servicer."""
    async with chain_server((Recovery("test"), RequestId(), *inner, Requests()), kinds or Kinds()) as server:
        yield server.channel


def start(
    channel: aio.Channel, kind: str, deed: str = "answer", *metadata: tuple[str, str | bytes], timeout: float | None = None
):
    return chain_server_kit.start(channel, kind, deed.encode(), metadata=metadata, timeout=timeout)


async def ends(call) -> grpc.StatusCode:
    """How it ended, whatever that was."""
    with suppress(aio.AioRpcError, asyncio.CancelledError):
        await answer(call)
    return await call.code()
