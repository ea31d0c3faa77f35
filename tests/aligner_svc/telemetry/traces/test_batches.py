"""The trace of a batch and those of its calls are linked."""

from __future__ import annotations

import asyncio

from aligner_svc.domain import Caller
from aligner_svc.engines.batch_report import BatchWatch
from aligner_svc.engines.batching import Batcher
from aligner_svc.telemetry.traces.batches import trace_batches
from interceptors.calls.call import Call, current_call, enter_call
from interceptors.tracing.call_trace import BatchTrace, CallTrace, SpanRef, current_trace, enter_trace


async def test_a_batch_is_linked_to_the_calls_that_submitted_its_items() -> None:
    batches: list[BatchTrace] = []
    calls: list[Call | None] = []

    async def run(items):
        calls.append(current_call())
        return items

    batcher = Batcher(
        run,
        size=len,
        budget=100,
        max_items=8,
        queue=8,
        max_padding=0.9,
        watch=BatchWatch(trace_batches(batches.append), current_trace),
    )

    async def call(number: int, item: str) -> CallTrace:
        enter_call(Call("/test", f"ipv4:127.0.0.1:{number}"))
        trace = CallTrace("test", "/test", "", SpanRef(number, number, True), None, 0.0, 0)
        enter_trace(trace)
        await batcher.submit(item, Caller(str(number), None))
        return trace

    traces = await asyncio.gather(*(asyncio.create_task(call(number, "x" * number)) for number in (1, 2, 3)))
    await batcher.close()
    (batch,) = batches
    assert set(batch.calls) == {trace.span for trace in traces}
    assert all(trace.batches == [batch] for trace in traces)
    assert (batch.attributes["items"], batch.attributes["tokens"], batch.attributes["computed"]) == (3, 6, 9)
    assert calls == [None]  # a batch belongs to no call
