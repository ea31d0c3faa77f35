"""Turns traces into OpenTelemetry spans, by its semantic conventions 1.44; attributes these do not define are `aligner.*`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from aligner_svc import __version__
from interceptors.calls.call import Attribute
from interceptors.tracing.call_trace import BatchTrace, CallTrace, Deliverable, SpanRef, StageSpan
from interceptors.tracing.headers import Parent
from interceptors.tracing.sampling import FAULTS

_SCOPE = InstrumentationScope("aligner_svc", __version__, Schemas.V1_44_0.value)
_LABEL = re.compile(r"[A-Za-z0-9_.:,/+-]{1,64}")
"""Texts that a stage's attribute may have: names. Sentences and JSON Web Tokens do not match."""
WITHHELD = "(withheld)"
_UNSET = Status(StatusCode.UNSET)
_Attributes = dict[str, Any]


class _HashedResource(Resource):
    """Hashed once: the encoder hashes the resource for each span, as JSON, which is a third of the cost of exporting a span."""

    def __init__(self, of: Resource) -> None:
        super().__init__(of.attributes, of.schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)


def resource(name: str, instance: str) -> Resource:
    """The service that sends the spans. OTEL_RESOURCE_ATTRIBUTES adds to the arguments and does not override them."""
    own = {"service.name": name, "service.version": __version__, "service.instance.id": instance}
    return _HashedResource(Resource.create(own))


class SpanMaker:
    """`server`: HOST:PORT, "" while unknown."""

    def __init__(self, of: Resource, server: Callable[[], str]) -> None:
        self._resource = of
        self._server = server

    def spans(self, trace: Deliverable) -> list[ReadableSpan]:
        """The call's own span first."""
        if isinstance(trace, BatchTrace):
            return [self._batch(trace)]
        state = TraceState.from_header([trace.parent.state]) if trace.parent is not None and trace.parent.state else None
        return [self._call(trace, state), *(self._stage(trace, span, state) for span in trace.stage_spans)]

    def _call(self, trace: CallTrace, state: TraceState | None) -> ReadableSpan:
        failed = trace.code in FAULTS
        attributes: _Attributes = {
            "rpc.system.name": "grpc",
            "rpc.method": trace.name or "_OTHER",
            "rpc.response.status_code": trace.code.name,
            "network.protocol.name": "http",
            "network.protocol.version": "1.1" if trace.protocol == "http" else "2",
            **_server(self._server()),
            **_peer(trace.peer),
            "aligner.request_id": trace.request_id,
            "aligner.trace.kept": trace.why,
        }
        if not trace.name:
            attributes["rpc.method_original"] = _allowed(trace.method.removeprefix("/"))
        if failed:
            attributes["error.type"] = trace.code.name
        optional = {
            "aligner.reason": trace.reason,
            "exception.type": trace.exception,
            "user_agent.original": trace.user_agent,
            "enduser.id": trace.principal,
            "aligner.stages.left_out": trace.left_out,
        }
        attributes |= {name: value for name, value in optional.items() if value}
        return ReadableSpan(
            trace.name or "grpc",  # the conventions' name for an unknown method
            _context(trace.span, state=state),
            _parent(trace.parent, state),
            self._resource,
            attributes,
            links=[Link(_context(batch.span)) for batch in trace.batches],
            kind=SpanKind.SERVER,
            status=Status(StatusCode.ERROR, trace.reason or None) if failed else _UNSET,
            start_time=trace.began_ns,
            end_time=trace.began_ns + _nanoseconds(trace.seconds),
            instrumentation_scope=_SCOPE,
        )

    def _stage(self, trace: CallTrace, span: StageSpan, state: TraceState | None) -> ReadableSpan:
        stage = span.stage
        began = trace.began_ns + _nanoseconds(stage.began - trace.began)
        attributes = _prefixed(stage.attributes)
        if stage.error:
            attributes["error.type"] = _allowed(stage.error)
        failed = bool(stage.error) and trace.code in FAULTS  # a refusal is not an error of the stage that refused
        return ReadableSpan(
            stage.name,
            _context(trace.span._replace(span_id=span.span_id), state=state),
            _context(trace.span._replace(span_id=span.parent_id), state=state),
            self._resource,
            attributes,
            status=Status(StatusCode.ERROR) if failed else _UNSET,
            start_time=began,
            end_time=began + _nanoseconds(stage.seconds),
            instrumentation_scope=_SCOPE,
        )

    def _batch(self, batch: BatchTrace) -> ReadableSpan:
        return ReadableSpan(
            "batch",
            _context(batch.span),
            None,
            self._resource,
            _prefixed(batch.attributes),
            links=[Link(_context(call)) for call in batch.calls],
            status=Status(StatusCode.ERROR) if batch.failed else _UNSET,
            start_time=batch.ended_ns - _nanoseconds(batch.seconds),
            end_time=batch.ended_ns,
            instrumentation_scope=_SCOPE,
        )


def _context(span: SpanRef, *, remote: bool = False, state: TraceState | None = None) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if span.sampled else TraceFlags.DEFAULT)
    return SpanContext(span.trace_id, span.span_id, remote, flags, state)


def _parent(parent: Parent | None, state: TraceState | None) -> SpanContext | None:
    if parent is None:
        return None
    return _context(SpanRef(parent.trace_id, parent.span_id, bool(parent.sampled)), remote=True, state=state)


def _prefixed(attributes: Mapping[str, Attribute]) -> _Attributes:
    return {f"aligner.{name}": _allowed(value) for name, value in attributes.items()}


def _allowed(value: object) -> Attribute:
    """The value if it is a number or a name. Anything else (a transcript, bytes) is there by mistake and is withheld."""
    if isinstance(value, bool | int | float):
        return value
    return value if isinstance(value, str) and _LABEL.fullmatch(value) else WITHHELD


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _server(address: str) -> _Attributes:
    if not address:
        return {}
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return {"server.address": address}
    return {"server.address": host.strip("[]"), "server.port": int(port)}


def _peer(peer: str) -> _Attributes:
    """From "ipv4:127.0.0.1:49534", "ipv6:%5B::1%5D:49534" or "unix:/path"."""
    kind, _, address = unquote(peer).partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return {"network.transport": "unix", "network.peer.address": address} if kind == "unix" else {}
    host, _, port = address.rpartition(":")
    attributes: _Attributes = {"network.transport": "tcp", "network.type": kind}
    for where in ("client", "network.peer"):
        attributes[f"{where}.address"] = host.strip("[]")
        if port.isdecimal():
            attributes[f"{where}.port"] = int(port)
    return attributes
