"""One page of metrics for a server of several processes, each of which counts by itself.

Counters and histograms are added, and what a process has counted stays when it ends: a total that fell would look like a restart
to Prometheus. What it counted after the last time it was asked is lost. Gauges are added, but for those that say whether
something works, when it expires or how long something has waited.

prometheus_client's own way for several processes keeps values in files that all of them map. It has neither exemplars nor the
metrics that are read at a scrape (see sources), which are half of ours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Exemplar, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Page: TypeAlias = list[Any]
"""JSON: [name, type, documentation, [[sample's name, labels, value, exemplar or null], ...]] of each family."""

LOWEST: Final = frozenset({
    "aligner_antivirus_up",
    "aligner_certificate_expiry_timestamp_seconds",
    "aligner_engine_batch_budget_tokens",
    "aligner_engine_up",
    "aligner_jwks_up",
    "aligner_quota_store_up",
    "process_max_fds",
    "process_start_time_seconds",
})  # fmt: skip
HIGHEST: Final = frozenset({
    "aligner_antivirus_signature_age_seconds",
    "aligner_build_info",
    "aligner_engine_queue_oldest_seconds",
    "aligner_jwks_age_seconds",
    "aligner_jwks_fetch_failing",
    "aligner_ready",
})  # fmt: skip
_TOTALS: Final = frozenset({"counter", "histogram", "summary"})

_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


def page_of(registry: CollectorRegistry) -> Page:
    """What the registry has now. Takes some milliseconds; on any thread."""
    return [_plain(family) for family in registry.collect()]


class MergedPages(Collector):
    """The processes' pages as one, for a MetricsServer."""

    def __init__(self, refresh: Callable[[], Awaitable[None]], processes: Callable[[], tuple[int, int, int]]) -> None:
        """`refresh` asks for pages, to `take` them. `processes`: that serve, there should be, were replaced."""
        self._refresh = refresh
        self._processes = processes
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._pages: dict[int, Page] = {}
        self._ended: Page = []

    async def refreshed(self) -> CollectorRegistry:
        """The registry, with the pages as of now."""
        await self._refresh()
        return self._registry

    def take(self, process: int, page: Page) -> None:
        """The latest page of a process."""
        self._pages[process] = page

    def ended(self, process: int) -> None:
        """It has ended: its totals stay."""
        last = [family for family in self._pages.pop(process, []) if family[1] in _TOTALS]
        self._ended = [_plain(family) for family in _merged([self._ended, last])]

    def collect(self) -> Iterable[Metric]:
        up, wanted, replaced = self._processes()
        yield GaugeMetricFamily("aligner_processes", "Processes of the server that serve.", value=up)
        yield GaugeMetricFamily("aligner_processes_wanted", "Processes of the server there should be.", value=wanted)
        yield CounterMetricFamily("aligner_process_restarts", "Processes of the server that were replaced.", value=replaced)
        yield from _merged([self._ended, *self._pages.values()])


def _merged(pages: Iterable[Page]) -> Iterable[Metric]:
    families: dict[str, tuple[str, str, dict[_Key, tuple[float, Exemplar | None]]]] = {}
    for page in pages:
        for name, kind, documentation, samples in page:
            _, _, merged = families.setdefault(name, (kind, documentation, {}))
            together = min if name in LOWEST else max if name in HIGHEST else _sum
            for sample, labels, value, exemplar in samples:
                key = sample, tuple(sorted(labels.items()))
                before = merged.get(key)
                if before is None:
                    merged[key] = value, _exemplar(exemplar)
                else:
                    merged[key] = together(before[0], value), _exemplar(exemplar) or before[1]
    for name, (kind, documentation, merged) in families.items():
        family = Metric(name, documentation, kind)
        for (sample, labels), (value, exemplar) in merged.items():
            family.add_sample(sample, dict(labels), value, exemplar=exemplar)
        yield family


def _sum(one: float, other: float) -> float:
    return one + other


def _plain(family: Metric) -> list[Any]:
    """See Page."""
    samples = [
        [one.name, one.labels, one.value, one.exemplar and [one.exemplar.labels, one.exemplar.value, one.exemplar.timestamp]]
        for one in family.samples
    ]
    return [family.name, family.type, family.documentation, samples]


def _exemplar(plain: list[Any] | None) -> Exemplar | None:
    return None if plain is None else Exemplar(*plain)
