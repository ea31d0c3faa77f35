"""Builds metrics and readiness from the settings: the registry, what it reads at a scrape, and the port that serves both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from aligner_svc import __version__
from aligner_svc.config import Settings
from aligner_svc.engines.base import Engine
from aligner_svc.engines.batch_report import BatchReport, BatchWatch
from aligner_svc.health.findings import listed
from aligner_svc.health.readiness import Readiness
from aligner_svc.rpc.services import METHOD_TYPES
from aligner_svc.telemetry.logs.pipeline import in_force
from aligner_svc.telemetry.metrics import CacheCounts, HttpState, Metrics, Sources
from aligner_svc.telemetry.metrics.merged import Page, page_of
from aligner_svc.telemetry.metrics.server import MetricsServer
from aligner_svc.transport.bind import parse
from interceptors import Call
from interceptors.auth.method import CountedCache, MethodReport
from interceptors.quota.stores.fallback import FallbackStore
from interceptors.tracing.call_trace import sampled_trace_id

if TYPE_CHECKING:
    from aligner_svc.audio.decode import Decoder
    from aligner_svc.http.door import Door
    from aligner_svc.transport.connections import Connections
    from aligner_svc.wiring.chain import Guards
    from interceptors.antivirus.scanner import Antivirus, ScannerState


class Measuring:
    """`metrics` for the guards, `server` to start and close with the service: None where another process serves them."""

    def __init__(self, settings: Settings, *, served: bool = True) -> None:
        """`served`: on the port of the settings. Raises StartError for an invalid address."""
        assert settings.metrics.listen is not None
        address = parse(settings.metrics.listen)
        self._guards: Guards | None = None
        self._readiness: Readiness | None = None
        quotas = settings.server.profile != "dev" or settings.quota.file is not None
        self.metrics = Metrics(METHOD_TYPES, quota_class=self._quota_class if quotas else None, trace_id=sampled_trace_id)
        self.server = MetricsServer(self.metrics, address.host, address.port, readiness=self.ready) if served else None
        self._settings = settings

    def _quota_class(self, call: Call) -> str:
        quota = self._guards.protection.quota if self._guards is not None else None
        return quota.class_of(call).name if quota is not None else ""

    def watch(self, other: BatchWatch | None) -> BatchWatch:
        """Count the engine's batches, and pass them on to `other`."""
        further = other or BatchWatch()

        def on_batch(report: BatchReport) -> None:
            self.metrics.engine.batch(report)
            if further.on_batch is not None:
                further.on_batch(report)

        return BatchWatch(on_batch, further.origin)

    def read(
        self,
        guards: Guards,
        engine: Engine,
        decoder: Decoder,
        connections: Connections,
        door: Door | None = None,
        *,
        not_serving: Callable[[], str | None],
        dropped: Mapping[str, Callable[[], int]],
    ) -> None:
        """Read these parts at each scrape and probe. Call it once, when all of them are built."""
        self._guards = guards
        report = engine.report
        store = guards.protection.store
        methods = [method.report for method in guards.methods.values()]
        certificates, antivirus = guards.certificates, guards.antivirus
        sources = Sources(
            build={"version": __version__, "engine": engine.name},
            connections=connections,
            http=partial(_http, door) if door is not None else None,
            not_serving=not_serving,
            engine=report.state,
            engine_slots=report.slots,
            engine_queue=self._settings.engine.queue,
            pools=[*decoder.pools, *report.pools],
            exempt=guards.exempt,
            overload=guards.protection.overload,
            quota_store=store if isinstance(store, FallbackStore) else None,
            key_sources={name: keys for method in methods for name, keys in method.key_sources.items()},
            certificate_expires=(lambda: certificates.expires) if certificates is not None else None,
            antivirus=(lambda: antivirus.state) if antivirus is not None else None,
            caches=_caches(methods, antivirus),
            dropped={**dropped, **_lost_lines()},
        )
        self.metrics.watch(sources)
        keys = guards.methods.get("api_key")
        self._readiness = Readiness(
            self._settings, sources, keys_unavailable=keys.report.unavailable if keys is not None else None
        )

    async def page(self) -> Page:
        """The metrics, for the process that serves those of several."""
        self.metrics.refresh()
        return await asyncio.to_thread(page_of, self.metrics.registry)

    def findings(self) -> list[dict[str, str]]:
        """See Readiness.findings."""
        return listed(self._readiness.findings()) if self._readiness is not None else []

    def ready(self) -> tuple[bool, str]:
        """See Readiness.report."""
        assert self._readiness is not None  # the port opens after `read`
        return self._readiness.report()

    async def start(self) -> None:
        """Raises StartError."""
        await self.metrics.start()
        if self.server is not None:
            await self.server.start()

    async def close(self) -> None:
        """Idempotent."""
        if self.server is not None:
            await self.server.close()
        await self.metrics.close()


def _http(door: Door) -> HttpState:
    return HttpState(door.open, door.counts.closed, door.counts.refused, door.counts.responses)


def _caches(methods: Sequence[MethodReport], antivirus: Antivirus | None) -> dict[str, Callable[[], CacheCounts]]:
    """Those in use, by the label of their metrics."""
    caches = [(name, cache) for method in methods for name, cache in method.caches.items()]
    found: dict[str, Callable[[], CacheCounts]] = {name: partial(_counts, cache) for name, cache in caches}
    if antivirus is not None:
        found["verdicts"] = lambda: _verdicts(antivirus.state)
    return found


def _counts(cache: CountedCache) -> CacheCounts:
    return CacheCounts(cache.hits, cache.misses, len(cache))


def _verdicts(state: ScannerState) -> CacheCounts:
    """A verdict not in the cache is a scan with one of these outcomes. A scan whose call ends meanwhile is in neither count."""
    misses = sum(state.counts[outcome] for outcome in ("clean", "infected", "failed", "away"))
    return CacheCounts(state.cache_hits, misses, state.cached)


def _lost_lines() -> dict[str, Callable[[], int]]:
    """Of the process's log, which is opened before the service is built; a program that embeds the service may have none."""
    log = in_force()
    return {"log": lambda: log.dropped} if log is not None else {}
