"""A trace that begins in Node, with a third-party client, goes on through a server here and ends in a collector."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from aligner_svc.telemetry.traces.export import Collector, TraceExport, otlp_exporter
from aligner_svc.telemetry.traces.spans import resource
from interceptors import Recovery, RequestId, Requests
from tests.kit.chain_server import chain_server
from tests.kit.node_client import node_call
from tests.kit.npm import needs_node
from tests.kit.otlp_receiver import OtlpReceiver
from tests.kit.traced_kinds import KINDS, SERVICE, Kinds, tracing

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
# On the wire a message with one bytes field is two bytes and the field: the handlers are given, and give, just that.
_PROTO = """
syntax = "proto3";
package test;
message Body { bytes field = 1; }
service Kinds {
  rpc UnaryUnary(Body) returns (Body);
  rpc UnaryStream(Body) returns (stream Body);
  rpc StreamUnary(stream Body) returns (Body);
  rpc StreamStream(stream Body) returns (stream Body);
}
"""

pytestmark = needs_node


class _Messages(Kinds):
    """Takes messages of the proto, and answers with an empty one."""

    async def act(self, request, context) -> bytes:
        await super().act(request[2:], context)
        return b""


@asynccontextmanager
async def traced(**named) -> AsyncIterator[tuple[str, OtlpReceiver]]:
    """Address of a server with the tracing, and the collector behind it."""
    async with OtlpReceiver().serving() as receiver:
        export = TraceExport(otlp_exporter(Collector(receiver.endpoint)), resource("test", "one"), every=0.01)
        await export.start()
        chain = (Recovery("test"), RequestId(), tracing(export.deliver, **named), Requests())
        try:
            async with chain_server(chain, _Messages(), tls=False) as server:
                yield server.target, receiver
        finally:
            await export.close()


@pytest_asyncio.fixture(loop_scope="module")
async def protos(tmp_path: Path) -> Path:
    (tmp_path / "kinds.proto").write_text(_PROTO)
    return tmp_path


async def call(target: str, kind: str, protos: Path, deed: str = "answer", **metadata: str):
    headers = {name.replace("_", "-"): value for name, value in metadata.items()}
    request = {"field": base64.b64encode(deed.encode()).decode()}
    return await node_call(target, f"{SERVICE}/{kind}", [request], metadata=headers, protos=protos, proto="kinds.proto")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_trace_that_begins_in_node_goes_on_here(protos, kind) -> None:
    async with traced(ratio=0.0) as (target, receiver):
        answer = await call(target, kind, protos, traceparent=f"00-{TRACE}-{SPAN}-01", tracestate="vendor=1", x_request_id="mine")
        await receiver.received(3)
    assert answer.code is grpc.StatusCode.OK
    span = receiver.named(f"{SERVICE}/{kind}")
    assert (span.trace, span.parent, span.state, span.status) == (TRACE, SPAN, "vendor=1", "UNSET")
    assert span.attributes["aligner.request_id"] == answer.trailing["x-request-id"] == "mine"
    assert span.attributes["user_agent.original"].startswith("grpc-node-js/")
    assert {other.trace for other in receiver.spans} == {TRACE}


async def test_a_refusal_is_found_by_the_callers_trace(protos) -> None:
    async with traced() as (target, receiver):
        answer = await call(target, "UnaryUnary", protos, "refuse", traceparent=f"00-{TRACE}-{SPAN}-01")
        await receiver.received(3)
    assert answer.code is grpc.StatusCode.PERMISSION_DENIED
    span = receiver.named(f"{SERVICE}/UnaryUnary")
    assert (span.trace, span.attributes["aligner.reason"]) == (TRACE, "NOT_ALLOWED")


async def test_b3_from_node(protos) -> None:
    async with traced(ratio=0.0, formats=("tracecontext", "b3")) as (target, receiver):
        await call(target, "UnaryUnary", protos, b3=f"{TRACE}-{SPAN}-1")
        await receiver.received(3)
    span = receiver.named(f"{SERVICE}/UnaryUnary")
    assert (span.trace, span.parent) == (TRACE, SPAN)
