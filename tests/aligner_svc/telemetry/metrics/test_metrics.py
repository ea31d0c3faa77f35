"""Counts agree with what clients saw, on a real server scraped by a real Prometheus, and labels are bounded."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import aio
from grpc_health.v1 import health, health_pb2_grpc
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

import aligner_svc
from aligner_svc.domain import Caller
from aligner_svc.engines.batch_report import BatchReport
from aligner_svc.engines.batching import Batcher
from aligner_svc.telemetry.metrics import CacheCounts, Metrics, Sources
from aligner_svc.telemetry.metrics.loop_lag import LoopLag
from aligner_svc.telemetry.metrics.server import MetricsServer
from aligner_svc.workers.pool import WorkerPool
from interceptors import CallInterceptor, CallRefusedError, HeaderLimits, Recovery, RequestId, Requests, current_call
from interceptors.calls.security_event import Event, SecurityEvent
from interceptors.calls.stages import add_stage, stage
from interceptors.metrics import CODES
from interceptors.overload.interceptor import Overload
from interceptors.overload.limit import AdaptiveLimit, LimitRules
from interceptors.quota.stores.base import StoreUnavailableError
from interceptors.quota.stores.fallback import FallbackStore
from interceptors.quota.stores.memory import MemoryStore
from tests import PROJECT
from tests.kit.chain_server import SERVICE, KindsHandler, chain_server, start
from tests.kit.prometheus_server import scraping
from tests.kit.waiting import eventually, forever, loop_turns

KINDS = {"UnaryUnary": "unary", "UnaryStream": "server_stream", "StreamUnary": "client_stream", "StreamStream": "bidi_stream"}
METHODS = {f"/{SERVICE}/{name}": kind for name, kind in KINDS.items()}
RULES = PROJECT / "deploy" / "prometheus" / "rules.yaml"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


async def act(deed: bytes) -> bytes:
    """Do what the request says."""
    match deed:
        case b"refuse":
            raise CallRefusedError(grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED", "not you")
        case b"invalid":
            raise CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "AUDIO_UNREADABLE", "not audio")
        case b"fail":
            raise ValueError("hunter2")
        case b"hang":
            await forever()
    return deed


class Handlers(KindsHandler):
    async def act(self, request, context) -> bytes:
        if request == b"abort":
            await context.abort(grpc.StatusCode.NOT_FOUND, "not here")
        return await act(request)

    async def unary_stream(self, request, context):
        first = await self.act(request, context)
        while request == b"flood":
            yield bytes(1 << 16)
        for _ in range(3):
            yield first

    async def stream_unary(self, requests, context):
        return await self.act([request async for request in requests][-1], context)

    async def stream_stream(self, requests, context):
        async for request in requests:
            yield await self.act(request, context)


class Guard(CallInterceptor):
    """Refuses calls whose headers ask for it, before a message is read."""

    @asynccontextmanager
    async def around(self, method, context) -> AsyncIterator[None]:
        metadata = dict(context.invocation_metadata())
        if "quota" in metadata:
            failure = error_details_pb2.QuotaFailure()
            failure.violations.add(quota_metric=metadata["quota"])
            raise CallRefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", "spent", details=[failure])
        if "reason" in metadata:
            raise CallRefusedError(grpc.StatusCode.UNAVAILABLE, metadata["reason"], "no")
        if "metered" in metadata:
            current_call().meter = Free()
        yield


class Free:
    """A meter that charges nothing."""

    async def received(self, size, message) -> None: ...

    async def text(self, audio_seconds) -> None: ...

    async def decoded(self, audio_seconds) -> None: ...


@dataclass
class Server:
    """`seen`: how calls ended for the client, by method and status."""

    metrics: Metrics
    channel: aio.Channel
    seen: Counter[tuple[str, grpc.StatusCode]] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    got: Counter[str] = field(default_factory=Counter)

    async def call(self, kind: str, *deeds: bytes, service: str = SERVICE, **named) -> grpc.StatusCode:
        """One call to its end."""
        call = self.start(kind, *(deeds or (b"answer",)), service=service, **named)
        try:
            if isinstance(call, aio.UnaryUnaryCall | aio.StreamUnaryCall):
                await call
                self.got[kind] += 1
            else:
                async for _ in call:
                    self.got[kind] += 1
        except (aio.AioRpcError, asyncio.CancelledError):
            pass
        code = await call.code()
        self.seen[kind, code] += 1
        return code

    def start(self, kind: str, *deeds: bytes, service: str = SERVICE, **named):
        return start(self.channel, f"/{service}/{kind}", deeds[0] if len(deeds) == 1 else deeds, **named)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def handled(self) -> Counter[tuple[str, grpc.StatusCode]]:
        """As `seen`, as the server has counted them."""
        return Counter(
            {
                (kind, code): int(value)
                for kind, grpc_type in {**KINDS, "unknown": "unary"}.items()
                for code, text in CODES.items()
                if (value := self.value("grpc_server_handled_total", **labels(kind, grpc_type), grpc_code=text))
            }
        )


def labels(kind: str, grpc_type: str | None = None) -> dict[str, str]:
    service = "unknown" if kind == "unknown" else SERVICE
    return {"grpc_type": grpc_type or KINDS[kind], "grpc_service": service, "grpc_method": kind}


@asynccontextmanager
async def serving(*, trace_id=lambda: "", quota_class=None) -> AsyncIterator[Server]:
    metrics = Metrics(METHODS, quota_class=quota_class, trace_id=trace_id)
    interceptors = (
        *(Recovery("test"), RequestId(), metrics.rpc),
        *(HeaderLimits(20, 4000), Guard(), Requests(), metrics.rpc.messages),
    )
    register = partial(health_pb2_grpc.add_HealthServicer_to_server, health.aio.HealthServicer())
    async with chain_server(interceptors, Handlers(), register=register) as server:
        yield Server(metrics, server.channel)


@asynccontextmanager
async def scraped(metrics: Metrics) -> AsyncIterator[MetricsServer]:
    server = MetricsServer(metrics, "127.0.0.1", 0)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


ENDS = {
    b"answer": grpc.StatusCode.OK,
    b"abort": grpc.StatusCode.NOT_FOUND,
    b"refuse": grpc.StatusCode.PERMISSION_DENIED,
    b"invalid": grpc.StatusCode.INVALID_ARGUMENT,
    b"fail": grpc.StatusCode.INTERNAL,
}


async def everything(server: Server) -> None:
    """Concurrent calls of every kind that end in every way."""
    assert await server.call("UnaryUnary") is grpc.StatusCode.OK  # connected before a deadline runs
    calls = [server.call(kind, deed) for kind in KINDS for deed in ENDS]
    calls += [server.call(kind, b"hang", timeout=5.0) for kind in KINDS]
    calls += [server.call(kind, metadata=[("reason", "SERVER_OVERLOADED")]) for kind in KINDS]
    await asyncio.gather(*calls)
    for kind in KINDS:
        before = _begun(server, kind)
        call = server.start(kind, b"hang")
        await eventually(lambda kind=kind, before=before: _begun(server, kind) > before)
        call.cancel()
        server.seen[kind, grpc.StatusCode.CANCELLED] += 1
    assert await server.call("Nothing", service="made.Up") is grpc.StatusCode.UNIMPLEMENTED
    server.seen["unknown", grpc.StatusCode.UNIMPLEMENTED] += server.seen.pop(("Nothing", grpc.StatusCode.UNIMPLEMENTED))


def _begun(server: Server, kind: str) -> float:
    return server.value("grpc_server_started_total", **labels(kind)) or 0


async def test_a_call_is_counted_with_the_status_its_client_saw() -> None:
    async with serving() as server:
        await everything(server)
        await eventually(lambda: server.handled() == server.seen)
        for kind in KINDS:
            calls = sum(count for (of, _), count in server.seen.items() if of == kind)
            assert calls == len(ENDS) + 3 + (kind == "UnaryUnary")
            assert _begun(server, kind) == calls
            assert server.value("grpc_server_handling_seconds_count", **labels(kind)) == calls


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seconds", [0.25, 1.234])
async def test_a_call_whose_deadline_ends_at_the_client_first_is_counted_as_such(kind, seconds) -> None:
    """GRPC rounds a timeout of 1.234 s up to 1.24 s on the wire: when the client gives up, the server has 6 ms left."""
    async with serving() as server:
        await server.call(kind)
        assert await server.call(kind, b"hang", timeout=seconds) is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: sum(server.handled().values()) == 2)
        assert server.handled() == server.seen


async def test_a_call_that_its_client_cancels_is_counted_as_cancelled() -> None:
    async with serving() as server:
        call = server.start("UnaryUnary", b"hang", timeout=600)
        await eventually(lambda: _begun(server, "UnaryUnary") == 1)
        call.cancel()
        await eventually(lambda: bool(server.handled()))
        assert server.handled() == {("UnaryUnary", grpc.StatusCode.CANCELLED): 1}


async def test_prometheus_reads_what_clients_counted() -> None:
    async with serving(trace_id=lambda: TRACE) as server, scraped(server.metrics) as endpoint:
        await everything(server)
        await eventually(lambda: server.handled() == server.seen)
        with scraping(endpoint.address, RULES) as prometheus:
            await asyncio.to_thread(prometheus.scraped)
            found = await asyncio.to_thread(prometheus.query, "grpc_server_handled_total > 0")
            read = {
                (series["metric"]["grpc_method"], series["metric"]["grpc_code"]): int(float(series["value"][1]))
                for series in found
            }
            assert read == {(kind, CODES[code]): count for (kind, code), count in server.seen.items()}
            bad = await asyncio.to_thread(prometheus.query, 'up{job="aligner"} != 1')
            assert bad == []
            exemplars = await asyncio.to_thread(prometheus.exemplars, "grpc_server_handling_seconds_bucket")
            assert {e["labels"]["trace_id"] for series in exemplars for e in series["exemplars"]} == {TRACE}
            broken = [rule for rule in await asyncio.to_thread(prometheus.rules) if rule["health"] == "err"]
            assert broken == []


async def test_messages_are_counted_where_the_servicer_reads_and_writes_them() -> None:
    async with serving() as server:
        await server.call("UnaryUnary", b"answer")
        await server.call("UnaryStream", b"answer")
        await server.call("StreamUnary", b"1", b"2", b"3", b"4", b"5")
        await server.call("StreamStream", b"1", b"2", b"3", b"4")
        await server.call("UnaryUnary", b"fail")  # read, and not answered
        await server.call("UnaryUnary", metadata=[("reason", "SERVER_OVERLOADED")])  # not even read
        await server.call("StreamStream", b"1", b"2", b"abort")
        expected = {"UnaryUnary": (2, 1), "UnaryStream": (1, 3), "StreamUnary": (5, 1), "StreamStream": (7, 6)}
        assert server.got == {kind: sent for kind, (_, sent) in expected.items()}
        names = "grpc_server_msg_received_total", "grpc_server_msg_sent_total"
        for kind, counts in expected.items():
            assert tuple(server.value(name, **labels(kind)) for name in names) == counts


async def test_a_response_counts_once_it_is_sent() -> None:
    async def made(request, context):
        yield b"first"
        yield b"second"

    metrics = Metrics(METHODS)
    counted = metrics.rpc.messages.wrap(f"/{SERVICE}/UnaryStream", grpc.unary_stream_rpc_method_handler(made))
    responses = counted.unary_stream(b"", None)

    def sent() -> float | None:
        return metrics.registry.get_sample_value("grpc_server_msg_sent_total", labels("UnaryStream"))

    assert await anext(responses) == b"first"
    assert sent() == 0  # it is on its way
    assert await anext(responses) == b"second"
    assert sent() == 1
    await responses.aclose()  # the caller has gone
    assert sent() == 1


async def test_a_stream_whose_client_leaves_while_it_writes_is_counted_as_cancelled() -> None:
    async with serving() as server:
        call = server.start("UnaryStream", b"flood")
        async for _ in call:
            break
        call.cancel()
        await eventually(lambda: bool(server.handled()))
        assert server.handled() == {("UnaryStream", grpc.StatusCode.CANCELLED): 1}


def test_every_method_and_status_is_there_before_the_first_call() -> None:
    metrics = Metrics(METHODS)
    for kind in KINDS:
        for name in ("started", "msg_received", "msg_sent"):
            assert metrics.registry.get_sample_value(f"grpc_server_{name}_total", labels(kind)) == 0
        assert metrics.registry.get_sample_value("grpc_server_handling_seconds_count", labels(kind)) == 0
        for code in CODES.values():
            assert metrics.registry.get_sample_value("grpc_server_handled_total", {**labels(kind), "grpc_code": code}) == 0
    assert CODES[grpc.StatusCode.OK] == "OK"
    assert CODES[grpc.StatusCode.CANCELLED] == "Canceled"
    assert CODES[grpc.StatusCode.DEADLINE_EXCEEDED] == "DeadlineExceeded"


async def test_2_000_unknown_methods_add_no_series() -> None:
    async with serving() as server:
        await server.call("Nothing0", service="made.Up")
        await eventually(lambda: sum(server.handled().values()) == 1)
        before = len(list(_series(server.metrics)))
        for first in range(1, 2_000, 500):
            many = range(first, min(first + 500, 2_000))
            await asyncio.gather(*(server.call(f"Nothing{n}", service=f"made.Up{n % 7}") for n in many))
        await eventually(lambda: sum(server.handled().values()) == 2_000)
        assert len(list(_series(server.metrics))) == before
        assert server.handled() == {("unknown", grpc.StatusCode.UNIMPLEMENTED): 2_000}


def _series(metrics: Metrics) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    return [(sample.name, tuple(sample.labels.items())) for family in metrics.registry.collect() for sample in family.samples]


async def test_labels_that_callers_influence_are_bounded() -> None:
    async with serving(quota_class=lambda call: call.request_id) as server:
        for n in range(300):
            await server.call("UnaryUnary", metadata=[("reason", f"REASON_{n}")])
            await server.call("UnaryUnary", metadata=[("quota", "requests_per_second"), ("x-request-id", f"class-{n}")])
            server.metrics.calls.event(SecurityEvent(Event.AUTHENTICATION_FAILED, check=f"check_{n}"))
        await eventually(lambda: sum(server.handled().values()) == 600)
        families = {"aligner_failures": 128, "aligner_quota_decisions": 64, "aligner_auth_failures": 64}
        for family in server.metrics.registry.collect():
            if limit := families.pop(family.name, None):
                assert len(family.samples) == limit + 1
                assert any("other" in sample.labels.values() for sample in family.samples)
        assert not families


async def test_exemplars_are_in_openmetrics_only() -> None:
    async with serving(trace_id=lambda: TRACE) as server:
        await server.call("UnaryUnary")
        await eventually(lambda: bool(server.handled()))
        assert f'# {{trace_id="{TRACE}"}}' in generate_openmetrics(server.metrics.registry).decode()
        assert TRACE not in generate_latest(server.metrics.registry).decode()


async def test_a_call_that_is_not_traced_has_no_exemplar() -> None:
    async with serving() as server:
        await server.call("UnaryUnary")
        await eventually(lambda: bool(server.handled()))
        assert "trace_id" not in generate_openmetrics(server.metrics.registry).decode()


async def test_counting_that_fails_fails_no_call(caplog) -> None:
    def broken(call) -> str:
        raise RuntimeError("no class")

    async with serving(quota_class=broken) as server:
        code = await server.call("UnaryUnary", metadata=[("metered", "yes")])
        assert code is grpc.StatusCode.OK
        await eventually(lambda: bool(server.handled()))
    assert "could not count the end of a call" in caplog.text


async def test_quotas_are_counted_by_class_dimension_and_decision() -> None:
    async with serving(quota_class=lambda call: "gold") as server:
        for quota in ("audio_seconds_per_day", "bytes_per_minute", "bytes_per_minute", "made up"):
            await server.call("UnaryUnary", metadata=[("quota", quota)])
        await server.call("UnaryUnary", metadata=[("metered", "yes")])
        await server.call("UnaryUnary", b"fail", metadata=[("metered", "yes")])  # it was granted all the same
        await server.call("UnaryUnary")  # exempt
        await eventually(lambda: sum(server.handled().values()) == 7)

        def decided(dimension: str, decision: str) -> float | None:
            found = {"quota_class": "gold", "dimension": dimension, "decision": decision}
            return server.value("aligner_quota_decisions_total", **found)

        assert decided("audio_seconds_per_day", "refused") == 1
        assert decided("bytes_per_minute", "refused") == 2
        assert decided("other", "refused") == 1
        assert decided("any", "granted") == 2


async def test_failures_are_counted_by_the_reason_sent_to_callers() -> None:
    async with serving() as server:
        for deed in (b"refuse", b"invalid", b"invalid", b"fail"):
            await server.call("UnaryUnary", deed)
        for reason in ("DEADLINE_UNREACHABLE", "DEADLINE_EXPIRED"):
            await server.call("UnaryUnary", metadata=[("reason", reason)])
        await server.call("UnaryUnary", b"hang", timeout=0.2)
        await eventually(lambda: sum(server.handled().values()) == 7)
        found = {"NOT_ALLOWED": "PermissionDenied", "AUDIO_UNREADABLE": "InvalidArgument", "INTERNAL": "Internal"}
        counts = [server.value("aligner_failures_total", reason=reason, grpc_code=code) for reason, code in found.items()]
        assert counts == [1, 2, 1]
        missed = [server.value("aligner_deadlines_missed_total", where=where) for where in ("door", "queue", "call")]
        assert missed == [1, 1, 1]
        assert "hunter2" not in generate_latest(server.metrics.registry).decode()


async def test_the_seconds_of_a_call_are_counted_by_stage() -> None:
    """Two windows of one call are one observation, and waiting does not count as work."""
    metrics = Metrics(METHODS)

    class Staged(CallInterceptor):
        @asynccontextmanager
        async def around(self, method, context) -> AsyncIterator[None]:
            add_stage("decode", 0.0, 0.5)
            add_stage("queue", 0.0, 7.0)
            add_stage("align", 0.0, 0.25, audio_seconds=10.0)
            add_stage("align", 0.0, 0.25, audio_seconds=10.0)
            with stage("something new"):
                pass
            yield

    async with chain_server((Recovery("test"), RequestId(), metrics.rpc, Staged(), Requests()), Handlers()) as server:
        client = Server(metrics, server.channel)
        await client.call("UnaryUnary")
        await client.call("UnaryUnary", b"fail")
        await eventually(lambda: sum(client.handled().values()) == 2)
    for name, seconds in {"decode": 0.5, "queue": 7.0, "align": 0.5}.items():
        assert client.value("aligner_stage_seconds_count", stage=name) == 2
        assert client.value("aligner_stage_seconds_sum", stage=name) == 2 * seconds
    assert client.value("aligner_audio_seconds_sum") == 20.0
    assert client.value("aligner_real_time_factor_count") == 1  # of the one that was answered
    assert client.value("aligner_real_time_factor_sum") == pytest.approx(0.1)


def test_audit_events_are_counted_and_passed_on() -> None:
    metrics = Metrics(METHODS)
    written: list[SecurityEvent] = []
    record = metrics.calls.recording(written.append)
    events = [
        SecurityEvent(Event.AUTHENTICATION_FAILED, check="signature", principal="alice"),
        SecurityEvent(Event.KEY_USED_AFTER_REVOCATION, check="key_revoked"),
        SecurityEvent(Event.PEER_BLOCKED, check="too_many_failures"),
        SecurityEvent(Event.PEER_UNBLOCKED),
    ]
    for event in events:
        record(event)
    assert written == events
    read = metrics.registry.get_sample_value
    assert read("aligner_auth_failures_total", {"check": "signature"}) == 1
    assert read("aligner_auth_failures_total", {"check": "key_revoked"}) == 1
    assert read("aligner_blocks_total", {"check": "too_many_failures"}) == 1
    assert read("aligner_security_events_total", {"event": "peer_unblocked"}) == 1
    assert "alice" not in generate_latest(metrics.registry).decode()


def test_batches_are_counted() -> None:
    metrics = Metrics(METHODS)
    metrics.engine.batch(BatchReport(items=4, tokens=90, computed=100, seconds=0.5, longest_wait=0.2, failed=False))
    metrics.engine.batch(BatchReport(items=1, tokens=10, computed=10, seconds=0.25, longest_wait=0.0, failed=True))
    read = metrics.registry.get_sample_value
    assert read("aligner_batch_items_sum") == 5
    assert read("aligner_batch_padding_ratio_sum") == pytest.approx(0.1)
    assert read("aligner_engine_busy_seconds_total") == 0.75
    assert read("aligner_batch_wait_seconds_sum") == 0.2
    assert read("aligner_batches_failed_total") == 1


class Shared:
    """A shared store that is always unavailable."""

    place = "redis"

    def __getattr__(self, name: str):
        async def unavailable(*_) -> None:
            if name not in {"start", "close"}:
                raise StoreUnavailableError("no")

        return unavailable


async def test_state_is_read_at_the_time_of_the_scrape() -> None:
    metrics = Metrics(METHODS)
    going = asyncio.Event()

    async def run(items) -> list[None]:
        await going.wait()
        return [None for _ in items]

    batcher: Batcher = Batcher(run, size=lambda item: item, budget=1, max_items=1, queue=8)
    rules = LimitRules(lowest=2, highest=8, initial=8)
    overload = Overload(AdaptiveLimit(rules), exempt=(), priority=lambda call: 1)
    overload.refused["SERVER_OVERLOADED"] = 3
    store = FallbackStore(Shared(), MemoryStore(), 2)
    hits = 0
    sources = Sources(
        build={"version": "1.2.3"},
        not_serving=lambda: None,
        engine=batcher.state,
        engine_slots=1,
        engine_queue=8,
        overload=overload,
        quota_store=store,
        certificate_expires=lambda: 1e9,
        caches={"tokens": lambda: CacheCounts(hits, 2, 1)},
        dropped={"audit": lambda: 5},
    )
    metrics.watch(sources)
    read = metrics.registry.get_sample_value
    metrics.refresh()
    assert read("aligner_engine_queue_length") == 0
    assert read("aligner_quota_store_up") == 1
    work = [asyncio.create_task(batcher.submit(10, Caller("a", None))) for _ in range(4)]
    await loop_turns(2)
    await store.start()
    hits = 7
    metrics.refresh()
    assert read("aligner_engine_queue_length") + read("aligner_engine_running_batches") == 4
    assert read("aligner_engine_queue_limit") == 8
    assert read("aligner_engine_up") == 1
    assert read("aligner_quota_store_up") == 0
    assert read("aligner_quota_store_losses_total") == 1
    assert read("aligner_calls_limit") == 8
    assert read("aligner_overload_refused_total", {"reason": "SERVER_OVERLOADED"}) == 3
    assert read("aligner_overload_refused_total", {"reason": "DEADLINE_UNREACHABLE"}) == 0
    assert read("aligner_cache_hits_total", {"cache": "tokens"}) == 7
    assert read("aligner_certificate_expiry_timestamp_seconds") == 1e9
    assert read("aligner_build_info", {"version": "1.2.3"}) == 1
    assert read("aligner_telemetry_dropped_total", {"kind": "audit"}) == 5
    going.set()
    await asyncio.gather(*work)
    metrics.refresh()
    assert read("aligner_engine_queue_length") == 0
    await store.close()
    await batcher.close()


def test_a_source_that_fails_loses_only_its_own_series(caplog) -> None:
    metrics = Metrics(METHODS)

    def broken():
        raise RuntimeError("gone")

    metrics.watch(Sources(engine=broken, not_serving=lambda: None))
    with caplog.at_level(logging.ERROR):
        metrics.refresh()
        metrics.refresh()
    read = metrics.registry.get_sample_value
    assert read("aligner_ready") == 1
    assert read("aligner_metrics_source_errors_total", {"source": "engine"}) == 2
    assert read("aligner_metrics_source_errors_total", {"source": "process"}) == 0
    assert caplog.text.count("cannot be read") == 1


async def test_the_deaths_of_worker_processes_are_counted_in_their_parent(tmp_path, monkeypatch) -> None:
    (tmp_path / "echo_child.py").write_text(
        "from aligner_svc.workers import serve\nserve(lambda header, payload: (header, payload))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(Path(aligner_svc.__file__).parents[1])
    pool = WorkerPool("echo_child", 2, name="echo")
    metrics = Metrics(METHODS)
    metrics.watch(Sources(pools=[pool]))
    read = metrics.registry.get_sample_value
    await pool.start()
    try:
        os.kill(pool.pids[0], signal.SIGKILL)
        await eventually(lambda: pool.restarts == 1 and len(pool.pids) == 2)
        metrics.refresh()
        assert read("aligner_worker_restarts_total", {"pool": "echo"}) == 1
        assert read("aligner_workers", {"pool": "echo"}) == 2
        assert read("aligner_workers_wanted", {"pool": "echo"}) == 2
    finally:
        await pool.close()


async def test_a_blocked_event_loop_is_measured() -> None:
    registry = CollectorRegistry()
    lag = LoopLag(registry, every=0.01)
    await lag.start()
    await loop_turns()  # the timer is set
    blocked_until = time.monotonic() + 0.3
    while time.monotonic() < blocked_until:
        pass
    await eventually(lambda: bool(registry.get_sample_value("aligner_event_loop_lag_seconds_count")))
    await lag.close()
    await lag.close()
    assert registry.get_sample_value("aligner_event_loop_lag_seconds_sum") > 0.25


def test_two_servers_in_one_process_do_not_count_together() -> None:
    one, other = Metrics(METHODS), Metrics(METHODS)
    one.calls.event(SecurityEvent(Event.PEER_UNBLOCKED))
    assert other.registry.get_sample_value("aligner_security_events_total", {"event": "peer_unblocked"}) == 0
