"""Metrics of the engine's batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram

if TYPE_CHECKING:
    from aligner_svc.engines.batch_report import BatchReport

_ITEMS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_PADDING: Final = (0.0, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4)
"""Shares. Batches are formed to keep it below 0.1."""
_WAIT: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class EngineMetrics:
    """`batch` is the `on_batch` of an engine's batcher."""

    def __init__(self, registry: CollectorRegistry) -> None:
        what = "Items in a batch: recordings, or windows of them."
        self._items = Histogram("aligner_batch_items", what, buckets=_ITEMS, registry=registry)
        what = "Share of a batch that was padding, 0 to 1."
        self._padding = Histogram("aligner_batch_padding_ratio", what, buckets=_PADDING, registry=registry)
        what = "Longest wait among the items of a batch, in seconds."
        self._wait = Histogram("aligner_batch_wait_seconds", what, buckets=_WAIT, registry=registry)
        what = "Seconds the engine's slots worked; its rate divided by aligner_engine_lanes is the busy share."
        self._busy = Counter("aligner_engine_busy_seconds_total", what, registry=registry)
        self._failed = Counter("aligner_batches_failed_total", "Batches that failed.", registry=registry)

    def batch(self, report: BatchReport) -> None:
        """Count one batch. On the event loop."""
        self._items.observe(report.items)
        if report.computed:
            self._padding.observe(max(0.0, 1 - report.tokens / report.computed))
        self._wait.observe(report.longest_wait)
        self._busy.inc(max(0.0, report.seconds))
        if report.failed:
            self._failed.inc()
