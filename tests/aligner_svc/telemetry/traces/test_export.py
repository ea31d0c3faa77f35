"""Traces are sent to a collector over real OTLP: one that works, a slow one, a dead one."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc import aio

from aligner_svc.telemetry.traces.export import Collector, TraceCounts, TraceExport, TracingError, otlp_exporter
from aligner_svc.telemetry.traces.spans import WITHHELD, resource
from interceptors import CallInterceptor
from interceptors.calls.stages import stage
from interceptors.tracing.call_trace import Batches, CallTrace, SpanRef, current_trace
from tests.kit import certificates
from tests.kit.otlp_receiver import OtlpReceiver
from tests.kit.traced_kinds import KINDS, SECRET, SERVICE, answer, ends, serving, start, tracing
from tests.kit.waiting import eventually

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = ("traceparent", f"00-{TRACE}-{SPAN}-01")
TRANSCRIPT = "never gonna give you up"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImF1ZCI6ImFsaWduZXIifQ.c2lnbmF0dXJl"


@asynccontextmanager
async def exporting(endpoint: str, *, collector=None, **named) -> AsyncIterator[TraceExport]:
    exporter = otlp_exporter(Collector(endpoint, **({"timeout": 30.0} | (collector or {}))))
    export = TraceExport(exporter, resource("aligner", "one"), **({"every": 0.01} | named))
    await export.start()
    try:
        yield export
    finally:
        await asyncio.wait_for(export.close(), 60)


@pytest.fixture
async def receiver() -> AsyncIterator[OtlpReceiver]:
    async with OtlpReceiver().serving() as receiver:
        yield receiver


@pytest.fixture
def dead() -> str:
    """An address at which nothing listens, nor can during the test."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def trace(stages: int = 0) -> CallTrace:
    made = CallTrace("test", "/test", "", SpanRef(7, 8, True), None, 0.0, 0)
    for _ in range(stages):
        with stage("window") as window:
            pass
        made.begin_stage(window)(window)
    return made


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_is_exported_as_a_span_with_its_stages_below(receiver, kind) -> None:
    before = time.time_ns()
    async with (
        exporting(receiver.endpoint, server=lambda: "127.0.0.1:50051") as export,
        serving(tracing(export.deliver)) as channel,
    ):
        await answer(start(channel, kind, "answer", PARENT, ("tracestate", "vendor=1,other=2"), ("x-request-id", "mine")))
        await receiver.received(3)
    call, outer, inner = receiver.named(f"{SERVICE}/{kind}"), receiver.named("outer"), receiver.named("inner")
    assert (call.trace, call.parent, call.kind, call.state) == (TRACE, SPAN, "SERVER", "vendor=1,other=2")
    assert (outer.trace, outer.parent, inner.trace, inner.parent) == (TRACE, call.span, TRACE, outer.span)
    assert len({call.span, outer.span, inner.span, SPAN}) == 4
    assert before <= call.began <= outer.began <= inner.began <= inner.ended <= outer.ended <= call.ended <= time.time_ns()
    assert {call.status, outer.status, inner.status} == {"UNSET"}
    attributes = call.attributes
    assert attributes.pop("client.port") == attributes.pop("network.peer.port") > 0
    assert attributes.pop("user_agent.original").startswith("grpc-python-asyncio/")
    assert attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": f"{SERVICE}/{kind}",
        "rpc.response.status_code": "OK",
        "server.address": "127.0.0.1",
        "server.port": 50051,
        "client.address": "127.0.0.1",
        "network.peer.address": "127.0.0.1",
        "network.transport": "tcp",
        "network.type": "ipv4",
        "network.protocol.name": "http",
        "network.protocol.version": "2",
        "aligner.request_id": "mine",
        "aligner.trace.kept": "sampled",
    }
    assert outer.attributes == {"aligner.bytes": 6, "aligner.container": "wav"}
    assert (call.resource["service.name"], call.resource["service.instance.id"]) == ("aligner", "one")
    assert (call.scope, call.schema) == ("aligner_svc", "https://opentelemetry.io/schemas/1.44.0")
    assert export.counts == TraceCounts(delivered=3, dropped=0, failed=0, waiting=0)


@pytest.mark.parametrize(
    ("deed", "status", "attributes"),
    [
        ("refuse", "UNSET", {"rpc.response.status_code": "PERMISSION_DENIED", "aligner.reason": "NOT_ALLOWED"}),
        ("full", "UNSET", {"rpc.response.status_code": "RESOURCE_EXHAUSTED", "aligner.reason": "QUEUE_FULL"}),
        (
            "fail",
            "ERROR",
            {
                "rpc.response.status_code": "INTERNAL",
                "error.type": "INTERNAL",
                "exception.type": "ValueError",
                "aligner.reason": "INTERNAL",
            },
        ),
    ],
)
async def test_only_faults_of_the_server_are_errors(receiver, deed, status, attributes) -> None:
    async with exporting(receiver.endpoint) as export, serving(tracing(export.deliver)) as channel:
        await ends(start(channel, "UnaryUnary", deed))
        await receiver.received(3)
    call, inner = receiver.named(f"{SERVICE}/UnaryUnary"), receiver.named("inner")
    known = {"rpc.response.status_code", "aligner.reason", "error.type", "exception.type"}
    assert {name: value for name, value in call.attributes.items() if name in known} == attributes
    assert (call.status, inner.status) == (status, status)
    assert inner.attributes == {"error.type": {"refuse": "NOT_ALLOWED", "full": "QUEUE_FULL", "fail": "ValueError"}[deed]}


async def test_unknown_methods_share_a_span_name_and_keep_theirs_as_an_attribute(receiver) -> None:
    async with exporting(receiver.endpoint) as export, serving(tracing(export.deliver)) as channel:
        for method in ("test.Kinds/Other", "test.Kinds/" + "x" * 200):
            with pytest.raises(aio.AioRpcError):
                await channel.unary_unary(f"/{method}")(b"")
        await receiver.received(2)
    assert [(span.name, span.attributes["rpc.method"], span.status) for span in receiver.spans] == [
        ("grpc", "_OTHER", "ERROR")
    ] * 2
    assert [span.attributes["rpc.method_original"] for span in receiver.spans] == ["test.Kinds/Other", WITHHELD]


async def test_a_batch_and_its_calls_are_linked(receiver) -> None:
    async with exporting(receiver.endpoint) as export:
        batches = Batches(export.deliver)

        class Engine(CallInterceptor):
            @asynccontextmanager
            async def around(self, method, context):
                batches.record([current_trace()], 0.5, failed=False, items=4, tokens=300, padding=0.25)
                yield

        async with serving(tracing(export.deliver), Engine()) as channel:
            await answer(start(channel, "UnaryUnary", "answer", PARENT))
            await receiver.received(4)
    call, batch = receiver.named(f"{SERVICE}/UnaryUnary"), receiver.named("batch")
    assert batch.links == [(TRACE, call.span)]
    assert call.links == [(batch.trace, batch.span)]
    assert (batch.parent, batch.kind, batch.ended - batch.began) == ("", "INTERNAL", 500_000_000)
    assert batch.trace != TRACE
    assert batch.attributes == {"aligner.items": 4, "aligner.tokens": 300, "aligner.padding": 0.25}


async def test_a_transcript_token_or_audio_in_an_attribute_is_withheld(receiver) -> None:
    class Careless(CallInterceptor):
        @asynccontextmanager
        async def around(self, method, context):
            with stage("text", transcript=TRANSCRIPT, token=TOKEN, audio=b"RIFF-audio", words=[TRANSCRIPT]):
                pass
            yield

    secrets = ("authorization", f"Bearer {TOKEN}"), ("x-api-key", SECRET)
    async with exporting(receiver.endpoint) as export, serving(tracing(export.deliver), Careless()) as channel:
        for deed in ("answer", "refuse", "full", "fail"):
            await ends(start(channel, "UnaryUnary", deed, *secrets))
        await receiver.received(16)
    withheld = {f"aligner.{name}": WITHHELD for name in ("transcript", "token", "audio", "words")}
    assert [span.attributes for span in receiver.spans if span.name == "text"] == [withheld] * 4
    everything = b"".join(receiver.raw)
    for secret in (TRANSCRIPT, TOKEN, SECRET, "RIFF-audio", "Traceback"):
        assert secret.encode() not in everything


async def test_the_collectors_secret_is_sent_to_it_and_not_shown(receiver) -> None:
    async with exporting(receiver.endpoint, collector={"headers": {"X-Api-Key": SECRET}}) as export:
        export.deliver(trace())
        await receiver.received(1)
    assert receiver.metadata[0]["x-api-key"] == SECRET
    assert SECRET not in repr(Collector("http://127.0.0.1:1", {"x-api-key": SECRET}))


async def test_a_collector_behind_tls_is_checked_against_the_configured_ca(tmp_path) -> None:
    ca = certificates.authority()
    own = certificates.server(ca)
    path = tmp_path / "ca.pem"
    credentials = grpc.ssl_server_credentials([(own.key_pem, own.certificate_pem)])
    async with OtlpReceiver(credentials=credentials).serving() as receiver:
        path.write_bytes(certificates.authority().certificate_pem)
        async with exporting(receiver.endpoint, collector={"ca": path, "timeout": 0.5}) as export:
            export.deliver(trace())
            await eventually(lambda: export.counts.failed == 1)
        path.write_bytes(ca.certificate_pem)
        async with exporting(receiver.endpoint, collector={"ca": path}) as export:
            export.deliver(trace())
            await receiver.received(1)


async def test_a_collector_that_is_down_affects_no_call(dead, caplog) -> None:
    with caplog.at_level(logging.INFO):
        async with exporting(dead, collector={"timeout": 0.5}, batch=8) as export, serving(tracing(export.deliver)) as channel:
            for _ in range(50):
                assert await answer(start(channel, "UnaryUnary")) == b"done"
            await eventually(lambda: export.counts.failed > 8)
    counts = export.counts
    assert (counts.delivered, counts.waiting) == (0, 0)
    assert counts.failed + counts.dropped == 150
    assert [record.message for record in caplog.records] == [  # not a line for every attempt
        "the collector does not accept traces; until it does they are dropped and counted"
    ]


async def test_a_collector_that_hangs_affects_no_call(receiver) -> None:
    receiver.hanging = True
    async with exporting(receiver.endpoint, collector={"timeout": 600}, room=30, batch=3, flush=0.2) as export:
        async with serving(tracing(export.deliver)) as channel:
            await answer(start(channel, "UnaryUnary"))
            await receiver.until(lambda receiver: receiver.requests == 1)
            for _ in range(50):
                assert await answer(start(channel, "UnaryUnary")) == b"done"
        assert export.counts == TraceCounts(delivered=0, dropped=120, failed=0, waiting=30)
    # Closed while it hung: the delivery in flight has failed, and the rest was dropped.
    assert export.counts == TraceCounts(delivered=0, dropped=150, failed=3, waiting=0)


async def test_a_collector_that_accepts_connections_and_never_answers(caplog) -> None:
    async def silent(reader, writer) -> None:
        await reader.read()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with exporting(f"http://127.0.0.1:{port}", collector={"timeout": 600}, flush=0.2) as export:
            export.deliver(trace())
    assert export.counts.failed == 1


async def test_export_continues_when_the_collector_is_back(caplog) -> None:
    receiver = OtlpReceiver(refusing=grpc.StatusCode.INVALID_ARGUMENT)  # which is not retried
    with caplog.at_level(logging.INFO, "aligner_svc"):
        async with receiver.serving(), exporting(receiver.endpoint) as export:
            for _ in range(3):
                export.deliver(trace())
                await eventually(lambda: export.counts.waiting == 0)
            await eventually(lambda: export.counts.failed == 3)
            receiver.refusing = None
            export.deliver(trace())
            await receiver.received(1)
    assert export.counts == TraceCounts(delivered=1, dropped=0, failed=3, waiting=0)
    assert [record.message.split(" traces")[0] for record in caplog.records] == [
        "the collector does not accept",
        "the collector accepts",
    ]


async def test_waiting_traces_are_sent_at_the_close(receiver) -> None:
    async with exporting(receiver.endpoint, every=3600.0) as export:
        for _ in range(3):
            export.deliver(trace(stages=1))
        await export.close()
        export.deliver(trace())
    assert len(receiver.spans) == 6
    assert export.counts == TraceCounts(delivered=6, dropped=1, failed=0, waiting=0)


async def test_a_call_with_more_spans_than_a_message_may_have_stays_whole(receiver) -> None:
    async with exporting(receiver.endpoint, batch=5) as export:
        export.deliver(trace(stages=20))
        await receiver.received(21)
    assert receiver.requests == 1


async def test_an_export_that_never_started_can_be_closed(dead) -> None:
    export = TraceExport(otlp_exporter(Collector(dead)), resource("aligner", "one"))
    export.deliver(trace())
    await asyncio.wait_for(export.close(), 60)
    assert export.counts.dropped == 1


async def test_an_exporter_that_raises_does_not_end_the_thread(receiver, monkeypatch, caplog) -> None:
    exporter = otlp_exporter(Collector(receiver.endpoint))
    export = TraceExport(exporter, resource("aligner", "one"), every=0.01)
    await export.start()
    with monkeypatch.context() as patch:
        patch.setattr(exporter, "export", lambda spans: 1 / 0)
        export.deliver(trace())
        await eventually(lambda: export.counts.failed == 1)
    export.deliver(trace())
    await receiver.received(1)
    await export.close()


@pytest.mark.parametrize(
    ("endpoint", "headers", "words"),
    [
        ("collector:4317", {}, "write http://HOST:PORT"),
        ("ftp://collector:4317", {}, "write http://HOST:PORT"),
        ("http://collector", {}, "write http://HOST:PORT"),
        ("http://collector:many", {}, "write http://HOST:PORT"),
        ("http://collector:4317/v1/traces", {}, "write http://HOST:PORT"),
        ("http://collector:4317", {"x-api-key": SECRET}, "in clear"),
    ],
)
def test_an_invalid_address_is_refused(endpoint, headers, words) -> None:
    with pytest.raises(TracingError, match=words) as error:
        otlp_exporter(Collector(endpoint, headers))
    assert SECRET not in str(error.value)


def test_the_error_for_a_missing_file_names_it(tmp_path) -> None:
    with pytest.raises(TracingError, match=r"nowhere\.pem"):
        otlp_exporter(Collector("https://collector:4317", ca=tmp_path / "nowhere.pem"))
