"""A collector of traces in this process: it keeps what real exporters send it over real OTLP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc import aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.kit.chain_server import started

_SECONDS = 60


@dataclass(frozen=True)
class ReceivedSpan:
    """Ids are hexadecimal, "" where there is none; times in nanoseconds since 1970."""

    name: str
    trace: str
    span: str
    parent: str
    kind: str
    """SERVER, INTERNAL..."""
    status: str
    """UNSET, OK or ERROR."""
    status_message: str
    state: str
    began: int
    ended: int
    attributes: dict[str, Any]
    links: Sequence[tuple[str, str]]
    """Trace and span."""
    resource: dict[str, Any]
    scope: str
    schema: str


@dataclass
class OtlpReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """`hanging`: it takes requests and never answers; `refusing`: it answers with this."""

    address: str = ""
    credentials: grpc.ServerCredentials | None = None
    hanging: bool = False
    refusing: grpc.StatusCode | None = None
    spans: list[ReceivedSpan] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    """What came, as it came."""
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    requests: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def endpoint(self) -> str:
        return f"http{'s' if self.credentials else ''}://{self.address}"

    async def Export(self, request, context):  # noqa: N802
        async with self._changed:
            self.requests += 1
            self._changed.notify_all()
        if self.hanging:
            await asyncio.Event().wait()
        if self.refusing is not None:
            await context.abort(self.refusing, "not now")
        self.raw.append(request.SerializeToString())
        self.metadata.append(dict(context.invocation_metadata()))
        async with self._changed:
            self.spans += spans_in(request)
            self._changed.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    async def until(self, condition: Callable[[OtlpReceiver], bool]) -> None:
        async with asyncio.timeout(_SECONDS), self._changed:
            await self._changed.wait_for(lambda: condition(self))

    async def received(self, count: int) -> list[ReceivedSpan]:
        """As soon as there are that many."""
        await self.until(lambda receiver: len(receiver.spans) >= count)
        return self.spans

    def named(self, name: str) -> ReceivedSpan:
        """The only one."""
        (only,) = [span for span in self.spans if span.name == name]
        return only

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[OtlpReceiver]:
        server = aio.server(options=[("grpc.so_reuseport", 0)])
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, server)
        async with started(server, self.credentials, address=self.address or "127.0.0.1:0") as self.address:
            yield self


def spans_in(request: trace_service_pb2.ExportTraceServiceRequest) -> list[ReceivedSpan]:
    return [
        _span(span, scope, _attributes(resource.resource.attributes))
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _span(span: trace_pb2.Span, scope: trace_pb2.ScopeSpans, resource: dict[str, Any]) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        trace=span.trace_id.hex(),
        span=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        status=trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        status_message=span.status.message,
        state=span.trace_state,
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        resource=resource,
        scope=scope.scope.name,
        schema=scope.schema_url,
    )


def _attributes(attributes: Sequence[common_pb2.KeyValue]) -> dict[str, Any]:
    return {attribute.key: _value(attribute.value) for attribute in attributes}


def _value(value: common_pb2.AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return [_value(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)
