"""A trace for each of the engine's batches, linked to the calls in it."""

from __future__ import annotations

from collections.abc import Callable

from aligner_svc.engines.batch_report import BatchReport
from interceptors.tracing.call_trace import Batches, CallTrace, Deliver


def trace_batches(deliver: Deliver) -> Callable[[BatchReport], None]:
    """The `on_batch` of a Batcher whose `origin` is interceptors.tracing.call_trace.current_trace."""
    batches = Batches(deliver)

    def on_batch(report: BatchReport) -> None:
        calls = [origin if isinstance(origin, CallTrace) else None for origin in report.origins]
        batches.record(
            calls,
            report.seconds,
            failed=report.failed,
            items=report.items,
            tokens=report.tokens,
            computed=report.computed,
            padding=1 - report.tokens / report.computed if report.computed else 0.0,
            longest_wait=report.longest_wait,
        )

    return on_batch
