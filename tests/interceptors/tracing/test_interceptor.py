"""The trace of a call, for all four kinds of RPC and all outcomes, on a real server."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest

from interceptors import CallInterceptor, current_call
from interceptors.calls.principal import Principal
from interceptors.calls.stages import stage
from interceptors.tracing.call_trace import MAX_SPANS, Batches, CallTrace, SpanRef, current_span, current_trace
from interceptors.tracing.headers import TraceHeaders
from tests.kit.traced_kinds import HEALTH, KINDS, SECRET, SERVICE, Delivered, Kinds, answer, ends, serving, start, tracing

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = ("traceparent", f"00-{TRACE}-{SPAN}-01")
UNSAMPLED = ("traceparent", f"00-{TRACE}-{SPAN}-00")


@pytest.fixture
async def delivered() -> Delivered:
    return Delivered()


@pytest.fixture
async def kinds() -> Kinds:
    return Kinds()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_continues_its_clients_trace(delivered, kinds, kind) -> None:
    async with serving(tracing(delivered), kinds=kinds) as channel:
        assert (
            await answer(start(channel, kind, "answer", PARENT, ("tracestate", "vendor=1"), ("x-request-id", "mine"))) == b"done"
        )
        trace = await delivered.one()
    assert (trace.name, trace.code, trace.why, trace.reason) == (f"{SERVICE}/{kind}", grpc.StatusCode.OK, "sampled", "")
    assert (trace.span.trace, trace.parent.span_id, trace.parent.state) == (TRACE, int(SPAN, 16), "vendor=1")
    assert (trace.request_id, trace.peer[:15]) == ("mine", "ipv4:127.0.0.1:")
    inner, outer = trace.stage_spans
    assert (inner.stage.name, inner.parent_id) == ("inner", outer.span_id)
    assert (outer.stage.name, outer.parent_id) == ("outer", trace.span.span_id)
    assert outer.stage.attributes == {"bytes": 6, "container": "wav"}
    assert 0 < inner.stage.seconds <= outer.stage.seconds <= trace.seconds
    assert kinds.ids == [f"{TRACE}-{inner.span_id:016x}"]  # for outgoing calls and logs


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_without_a_parent_begins_a_trace(delivered, kind) -> None:
    async with serving(tracing(delivered)) as channel:
        for header in (("x", "y"), ("traceparent", "nonsense")):
            await answer(start(channel, kind, "answer", header))
        traces = [await delivered.one() for _ in range(2)]
    assert all(trace.parent is None and trace.span.sampled for trace in traces)
    assert len({trace.span.trace_id for trace in traces}) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("deed", "code", "reason", "exception"),
    [
        ("abort", grpc.StatusCode.NOT_FOUND, "", ""),
        ("refuse", grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED", ""),
        ("full", grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", ""),
        ("fail", grpc.StatusCode.INTERNAL, "INTERNAL", "ValueError"),
        ("expel", grpc.StatusCode.UNAUTHENTICATED, "SESSION_EXPIRED", ""),
    ],
)
async def test_a_trace_has_the_outcome_and_its_reason(delivered, kind, deed, code, reason, exception) -> None:
    async with serving(tracing(delivered)) as channel:
        assert await ends(start(channel, kind, deed)) == code
        trace = await delivered.one()
    assert (trace.code, trace.reason, trace.exception) == (code, reason, exception)
    assert all(span.stage.error for span in trace.stage_spans)
    assert SECRET not in repr(trace)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_deadline_and_a_cancellation_are_distinguished(delivered, kinds, kind) -> None:
    async with serving(tracing(delivered), kinds=kinds) as channel:
        await ends(start(channel, kind, "hang", timeout=0.3))
        late = await delivered.one()
        kinds.begun.clear()
        call = start(channel, kind, "hang")
        ending = asyncio.create_task(ends(call))
        await kinds.begun.wait()
        call.cancel()
        await ending
        cancelled = await delivered.one()
    assert (late.code, cancelled.code) == (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
    assert [span.stage.error for span in cancelled.stage_spans] == ["CancelledError"] * 2


async def test_a_client_that_leaves_during_the_answer_has_cancelled(delivered, kinds) -> None:
    """The handler is abandoned, and Python closes it some time later, in another task."""
    async with serving(tracing(delivered), kinds=kinds) as channel:
        call = start(channel, "UnaryStream", "endless")
        await anext(aiter(call))
        call.cancel()
        trace = await delivered.one()
    assert trace.code == grpc.StatusCode.CANCELLED


async def test_a_refusal_after_the_deadline_is_a_missed_deadline(delivered) -> None:
    async with serving(tracing(delivered)) as channel:
        await ends(start(channel, "StreamUnary", "too late", timeout=0.3))
        trace = await delivered.one()
    assert (trace.code, trace.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "")


async def test_the_refusal_of_a_guard_is_in_the_trace_with_its_stage(delivered) -> None:
    class Guard(CallInterceptor):
        @asynccontextmanager
        async def around(self, method, context):
            with stage("authenticate"):
                current_call().principal = Principal("jwt:idp#alice", "jwt")
            yield

    for principals, name in ((False, ""), (True, "jwt:idp#alice")):
        async with serving(tracing(delivered, principals=principals), Guard()) as channel:
            await answer(start(channel, "UnaryUnary"))
            trace = await delivered.one()
        assert trace.principal == name
        assert [span.stage.name for span in trace.stage_spans] == ["authenticate", "inner", "outer"]
        assert trace.stage_spans[0].parent_id == trace.span.span_id


async def test_unserved_methods_share_one_name_and_probes_are_not_traced(delivered) -> None:
    async with serving(tracing(delivered)) as channel:
        await channel.unary_unary(HEALTH)(b"answer")
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary(f"/{SERVICE}/Other")(b"")
        trace = await delivered.one()
    assert (trace.name, trace.method, trace.code) == ("", f"/{SERVICE}/Other", grpc.StatusCode.UNIMPLEMENTED)
    assert trace.reason == "METHOD_UNKNOWN"


@pytest.mark.parametrize("kind", KINDS)
async def test_faults_among_unsampled_calls_are_kept_with_all_stages(delivered, kind) -> None:
    async with serving(tracing(delivered, ratio=0.0)) as channel:
        for deed in ("answer", "refuse", "fail"):
            await ends(start(channel, kind, deed))
        await ends(start(channel, kind, "fail", UNSAMPLED))
        first, second = await delivered.one(), await delivered.one()
    assert delivered.calls.empty()
    assert [(trace.why, trace.code, trace.span.sampled) for trace in (first, second)] == [
        ("error", grpc.StatusCode.INTERNAL, False)
    ] * 2
    assert [span.stage.name for span in first.stage_spans] == ["inner", "outer"]
    assert second.span.trace == TRACE


async def test_slow_calls_are_kept_if_configured(delivered) -> None:
    async with serving(tracing(delivered, ratio=0.0, keep_slower=1e-9)) as channel:
        await answer(start(channel, "UnaryUnary"))
        assert (await delivered.one()).why == "slow"


async def test_stages_are_not_recorded_if_no_call_is_kept_afterwards(delivered, kinds) -> None:
    known: list[CallTrace | None] = []

    class Witness(CallInterceptor):
        @asynccontextmanager
        async def around(self, method, context):
            known.append(current_trace())
            yield

    async with serving(tracing(delivered, ratio=0.0, keep_codes=frozenset()), Witness(), kinds=kinds) as channel:
        await ends(start(channel, "UnaryUnary", "fail"))
    assert delivered.calls.empty()
    assert [trace.stage_spans for trace in known] == [[]]
    assert kinds.ids[0].startswith(known[0].span.trace)  # logs name it all the same


@pytest.mark.parametrize(
    ("formats", "metadata"),
    [
        (("b3",), {"b3": f"{TRACE}-{SPAN}-1"}),
        (("b3multi",), {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-sampled": "1"}),
        (("tracecontext", "b3"), {"b3": f"{TRACE}-{SPAN}-1"}),
    ],
)
async def test_b3_is_read_if_configured(delivered, formats, metadata) -> None:
    async with serving(tracing(delivered, ratio=0.0, formats=formats)) as channel:
        await answer(start(channel, "UnaryUnary", "answer", *metadata.items()))
        trace = await delivered.one()
    assert (trace.span.trace, f"{trace.parent.span_id:016x}", trace.span.sampled) == (TRACE, SPAN, True)


async def test_b3_may_carry_only_the_sampling_decision(delivered) -> None:
    async with serving(tracing(delivered, ratio=0.0, formats=("b3",))) as channel:
        await answer(start(channel, "UnaryUnary", "answer", ("b3", "d")))
        trace = await delivered.one()
    assert trace.parent is None
    assert trace.span.trace_id


async def test_concurrent_calls_have_their_own_traces(delivered) -> None:
    async with serving(tracing(delivered)) as channel:
        parents = {f"{number:032x}" for number in range(1, 41)}
        calls = [start(channel, KINDS[n % 4], "answer", ("traceparent", f"00-{id}-{SPAN}-01")) for n, id in enumerate(parents)]
        await asyncio.gather(*map(answer, calls))
        traces = [await delivered.one() for _ in parents]
    assert {trace.span.trace for trace in traces} == parents
    for trace in traces:
        inner, outer = trace.stage_spans
        assert (inner.parent_id, outer.parent_id) == (outer.span_id, trace.span.span_id)


async def test_a_failed_delivery_does_not_affect_the_call() -> None:
    def broken(trace) -> None:
        raise RuntimeError

    async with serving(tracing(broken)) as channel:
        assert await answer(start(channel, "UnaryUnary")) == b"done"


@pytest.mark.parametrize(("sampled", "flags"), [(True, "01"), (False, "00")])
def test_a_span_has_a_header_for_outgoing_calls(sampled, flags) -> None:
    header = SpanRef(int(TRACE, 16), int(SPAN, 16), sampled).traceparent
    assert header == f"00-{TRACE}-{SPAN}-{flags}"
    parent = TraceHeaders(["tracecontext"]).parent([("traceparent", header)])
    assert (f"{parent.trace_id:032x}", parent.sampled) == (TRACE, sampled)


def call_trace(*, sampled: bool) -> CallTrace:
    return CallTrace("test", "/test", "", SpanRef(7, 8, sampled), None, 0.0, 0)


async def test_stages_beyond_the_maximum_are_counted(delivered) -> None:
    trace = call_trace(sampled=True)
    for _ in range(MAX_SPANS + 3):
        with stage("window") as window:
            pass
        trace.begin_stage(window)(window)
    assert (len(trace.stage_spans), trace.left_out, trace.size) == (MAX_SPANS, 3, MAX_SPANS + 1)


async def test_stages_that_end_after_the_call_are_not_recorded() -> None:
    before = current_span()  # pytest runs all tests in one context, where another may have left its call
    trace = call_trace(sampled=True)
    with stage("late") as late:
        end = trace.begin_stage(late)
    trace.open = False
    end(late)
    assert trace.stage_spans == []
    assert current_span() == before


def test_a_batch_is_linked_to_each_of_its_calls_once(delivered) -> None:
    chosen, other = call_trace(sampled=True), call_trace(sampled=False)
    Batches(delivered).record([chosen, other, chosen, None], 0.5, failed=False, items=4, padding=0.25)
    (batch,) = delivered.others
    assert batch.calls == [chosen.span, other.span]
    assert batch.attributes == {"items": 4, "padding": 0.25}
    assert chosen.batches == other.batches == [batch]
    assert batch.span.trace_id not in {0, 7}


def test_a_batch_of_unsampled_calls_waits_for_one_that_is_kept(delivered) -> None:
    Batches(delivered).record([None], 0.5, failed=False)
    call = call_trace(sampled=False)
    Batches(delivered).record([call], 0.5, failed=True)
    assert delivered.others == []
    assert not call.batches[0].delivered


async def test_a_kept_call_delivers_the_batches_it_was_in(delivered) -> None:
    batches = Batches(delivered)

    class Engine(CallInterceptor):
        @asynccontextmanager
        async def around(self, method, context):
            batches.record([current_trace()], 0.5, failed=True)
            yield

    async with serving(tracing(delivered, ratio=0.0), Engine()) as channel:
        await answer(start(channel, "UnaryUnary"))
        await ends(start(channel, "UnaryUnary", "fail"))
        trace = await delivered.one()
    assert delivered.others == trace.batches
    assert len(trace.batches) == 1
