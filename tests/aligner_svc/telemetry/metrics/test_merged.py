"""The pages of several processes as one."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from aligner_svc.telemetry.metrics.merged import HIGHEST, LOWEST, MergedPages, Page, page_of


def page(calls: int, waits: float, *, up: bool = True) -> Page:
    registry = CollectorRegistry()
    Counter("calls", "Calls.", ["code"], registry=registry).labels("OK").inc(calls)
    Histogram("wait_seconds", "Waits.", buckets=(1, 2), registry=registry).observe(waits, {"trace_id": f"t{calls}"})
    Gauge("aligner_connections", "Open.", registry=registry).set(calls)
    Gauge("aligner_engine_up", "Up.", registry=registry).set(up)
    Gauge("aligner_engine_queue_oldest_seconds", "Oldest.", registry=registry).set(waits)
    return page_of(registry)


def values(merged: MergedPages) -> dict[str, float]:
    return {
        sample.name + "".join(sample.labels.values()): sample.value for family in merged.collect() for sample in family.samples
    }


def merge(*pages: Page) -> MergedPages:
    async def nothing() -> None:
        """No process to ask."""

    merged = MergedPages(nothing, lambda: (len(pages), len(pages), 0))
    for number, one in enumerate(pages):
        merged.take(number, one)
    return merged


def test_totals_are_added_and_states_are_those_of_the_worst():
    found = values(merge(page(3, 0.5), page(4, 1.5, up=False)))
    assert found["calls_totalOK"] == 7
    assert (found["wait_seconds_bucket1.0"], found["wait_seconds_bucket2.0"], found["wait_seconds_sum"]) == (1, 2, 2.0)
    assert found["aligner_connections"] == 7
    assert found["aligner_engine_up"] == 0
    assert found["aligner_engine_queue_oldest_seconds"] == 1.5


def test_what_an_ended_process_counted_stays_and_what_it_held_goes():
    merged = merge(page(3, 0.5), page(4, 1.5))
    merged.ended(0)
    assert values(merged)["calls_totalOK"] == 7
    assert values(merged)["aligner_connections"] == 4
    merged.take(2, page(1, 0.5))
    merged.ended(1)
    assert values(merged)["calls_totalOK"] == 8
    assert values(merged)["aligner_connections"] == 1


async def test_exemplars_are_kept():
    text = generate_latest(await merge(page(3, 0.5), page(4, 1.5)).refreshed()).decode()
    found = {sample.exemplar.labels["trace_id"] for family in openmetrics(text) for sample in family.samples if sample.exemplar}
    assert found == {"t3", "t4"}


def test_no_gauge_is_added_that_says_whether_when_or_how_long():
    table = Path("docs/metrics.md").read_text(encoding="utf-8")
    gauges = set(re.findall(r"^\| `(aligner_\w+)` \| gauge", table, re.MULTILINE))
    states = {name for name in gauges if name.endswith(("_up", "_seconds", "_failing", "_ready", "_info"))}
    assert states <= LOWEST | HIGHEST
    assert {name for name in LOWEST | HIGHEST if name.startswith("aligner_")} <= gauges
