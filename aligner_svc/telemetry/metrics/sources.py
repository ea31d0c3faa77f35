"""Metrics that are read at each scrape: queue lengths, limits, ages, and totals that other parts count."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from aligner_svc.engines.batch_report import QueueState
    from aligner_svc.transport.connections import Connections
    from aligner_svc.workers.pool import WorkerPool
    from interceptors.antivirus.scanner import ScannerState
    from interceptors.auth.jwt.jwks import KeySource
    from interceptors.handlers.exempt import ExemptLimits
    from interceptors.overload.interceptor import Overload
    from interceptors.quota.stores.fallback import FallbackStore

log = logging.getLogger(__name__)

_OUTCOMES: Final = ("clean", "infected", "cached", "too_large", "failed", "away", "skipped")
_EXEMPT_REFUSALS: Final = ("REQUEST_INCOMPLETE", "REQUEST_TOO_LARGE", "COMPRESSION_REFUSED", "STREAMS_EXCEEDED")
_REFUSALS: Final = ("SERVER_OVERLOADED", "SERVER_DRAINING", "DEADLINE_UNREACHABLE", "REQUESTS_UNFINISHED")


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """Look-ups of one cache since the start, and its entries now."""

    hits: int
    misses: int
    entries: int


@dataclass(frozen=True, slots=True)
class HttpState:
    """Of the HTTP door: open connections, and counts since the start, see aligner_svc.http.counts."""

    open: int
    closed: Mapping[str, int]
    refused: Mapping[str, int]
    responses: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the values come from. Called on the event loop, once for each scrape; None or empty: no series."""

    build: Mapping[str, str] = field(default_factory=dict)
    """Labels of aligner_build_info."""
    connections: Connections | None = None
    http: Callable[[], HttpState] | None = None
    not_serving: Callable[[], str | None] | None = None
    """Why the health service says NOT_SERVING; it returns None while that says SERVING."""
    engine: Callable[[], QueueState] | None = None
    engine_slots: int = 0
    engine_queue: int = 0
    """Places in the engine's queue."""
    pools: Sequence[WorkerPool] = ()
    exempt: ExemptLimits | None = None
    overload: Overload | None = None
    quota_store: FallbackStore | None = None
    key_sources: Mapping[str, KeySource] = field(default_factory=dict)
    certificate_expires: Callable[[], float] | None = None
    """Unix seconds."""
    antivirus: Callable[[], ScannerState] | None = None
    caches: Mapping[str, Callable[[], CacheCounts]] = field(default_factory=dict)
    dropped: Mapping[str, Callable[[], int]] = field(default_factory=dict)
    """Audit lines, spans and log lines that were lost, by kind."""


class StateCollector(Collector):
    """`refresh` reads the sources, on the event loop; `collect` returns what was read, on any thread.

    A source that fails is counted and has no series until it can be read again; the others keep theirs.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._families: Sequence[Metric] = ()
        self._errors: dict[str, int] = {}

    def refresh(self) -> None:
        """Read every source."""
        families: list[Metric] = []
        for name, read in _READERS.items():
            self._errors.setdefault(name, 0)
            try:
                families += read(self._sources)
            except Exception:
                if not self._errors[name]:
                    log.exception("metrics: %s cannot be read", name)
                self._errors[name] += 1
        what = "Times that a part of the metrics could not be read."
        families.append(_counter("metrics_source_errors", what, self._errors, "source"))
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _family(
    kind: type[GaugeMetricFamily | CounterMetricFamily], name: str, what: str, value: float | Mapping[str, float], label: str = ""
) -> Metric:
    """One series, or with a `label` one for each of its values."""
    if not isinstance(value, Mapping):
        return kind(f"aligner_{name}", what, value=value)
    family = kind(f"aligner_{name}", what, labels=[label])
    for key, one in value.items():
        family.add_metric([key], one)
    return family


_gauge, _counter = partial(_family, GaugeMetricFamily), partial(_family, CounterMetricFamily)


def _process(sources: Sources) -> Iterator[Metric]:
    if sources.build:
        family = GaugeMetricFamily("aligner_build_info", "Always 1; the labels say what runs.", labels=list(sources.build))
        family.add_metric(list(sources.build.values()), 1)
        yield family
    if sources.not_serving is not None:
        yield _gauge("ready", "1: the health service says SERVING.", sources.not_serving() is None)
    if sources.certificate_expires is not None:
        what = "Unix time at which the first of the certificates in use expires."
        yield _gauge("certificate_expiry_timestamp_seconds", what, sources.certificate_expires())
    if sources.dropped:
        dropped = {name: read() for name, read in sources.dropped.items()}
        yield _counter("telemetry_dropped", "Audit lines, spans and log lines that were lost.", dropped, "kind")


def _connections(sources: Sources) -> Iterator[Metric]:
    http = sources.http() if sources.http is not None else None
    counts: dict[str, tuple[int, Mapping[str, int]]] = {}
    if sources.connections is not None:
        counts["grpc"] = sources.connections.open, sources.connections.closed
    if http is not None:
        counts["http"] = http.open, http.closed
    if counts:
        what = "Open connections, by protocol."
        yield _gauge("connections", what, {name: number for name, (number, _) in counts.items()}, "protocol")
        what = "Connections that the server closed because they took from others."
        family = CounterMetricFamily("aligner_connections_closed", what, labels=["protocol", "reason"])
        for name, (_, closed) in counts.items():
            for reason, number in closed.items():
                family.add_metric([name, reason], number)
        yield family
    if http is not None:
        by_status = {str(status): number for status, number in http.responses.items()}
        yield _counter("http_responses", "Answers of the HTTP port, by status.", by_status, "status")
        what = "Connections of the HTTP port that ended for what is no call, by why."
        yield _counter("http_refused", what, http.refused, "reason")


def _engine(sources: Sources) -> Iterator[Metric]:
    if sources.engine is None:
        return
    state = sources.engine()
    yield _gauge("engine_lanes", "Batches that can run at the same time.", sources.engine_slots)
    yield _gauge("engine_queue_limit", "Items that may wait for the engine.", sources.engine_queue)
    yield _gauge("engine_queue_length", "Items that wait for the engine.", state.waiting)
    yield _gauge("engine_queue_tokens", "Their size in the engine's tokens.", state.waiting_tokens)
    yield _gauge("engine_queue_oldest_seconds", "Seconds the oldest of them has waited.", state.oldest_wait)
    yield _gauge("engine_clients_waiting", "Callers with waiting items.", state.clients)
    yield _gauge("engine_running_batches", "Batches that run.", state.running)
    what = "Maximum size of a batch; less than configured after the device ran out of memory."
    yield _gauge("engine_batch_budget_tokens", what, state.budget)
    yield _gauge("engine_up", "0: the device is out of service.", state.failed is None)


def _workers(sources: Sources) -> Iterator[Metric]:
    pools = sources.pools
    if pools:
        yield _gauge("workers", "Worker processes that are up.", {pool.name: len(pool.pids) for pool in pools}, "pool")
        yield _gauge("workers_wanted", "Worker processes there should be.", {pool.name: pool.wanted for pool in pools}, "pool")
        waiting = {pool.name: pool.waiting for pool in pools}
        yield _gauge("worker_calls_waiting", "Jobs that wait for a worker process.", waiting, "pool")
        restarts = {pool.name: pool.restarts for pool in pools}
        yield _counter("worker_restarts", "Worker processes that were replaced.", restarts, "pool")
    if devices := {name: state for pool in pools for name, state in pool.places().items()}:
        up = {name: state.up for name, state in devices.items()}
        yield _gauge("device_processes", "Processes that drive the device and are up.", up, "device")
        what = "Processes of the device that were replaced."
        yield _counter("device_restarts", what, {name: state.restarts for name, state in devices.items()}, "device")
        what = "Seconds that the device worked; its rate is the busy share."
        yield _counter("device_busy_seconds", what, {name: state.busy for name, state in devices.items()}, "device")


def _exempt(sources: Sources) -> Iterator[Metric]:
    exempt = sources.exempt
    if exempt is None:
        return
    what = "Calls without authentication, by what they do: a request arrives, or a Watch is open."
    yield _gauge("exempt_calls", what, {"reading": exempt.reading, "watching": exempt.streaming}, "where")
    refused = dict.fromkeys(_EXEMPT_REFUSALS, 0) | exempt.refused
    yield _counter("exempt_refused", "Calls without authentication that were refused by a limit for them.", refused, "reason")


def _overload(sources: Sources) -> Iterator[Metric]:
    overload = sources.overload
    if overload is None:
        return
    counts = overload.counts
    where = {"on_the_way": counts.on_the_way, "waiting": counts.waiting, "at_work": counts.at_work, "long": counts.long}
    yield _gauge("calls", "Calls in the server, by where they are.", where, "where")
    limit = overload.limit
    if math.isfinite(limit):
        yield _gauge("calls_limit", "Calls that may be worked on at the same time.", limit)
    memory = overload.memory
    yield _gauge("upload_bytes", "Bytes of uploads that are kept, without the first 64 KiB of each.", memory.used)
    yield _gauge("uploads_held_back", "Uploads whose sender waits for room in the memory of uploads.", memory.waiting)
    refused = dict.fromkeys(_REFUSALS, 0) | overload.refused
    yield _counter("overload_refused", "Calls that were refused because of overload.", refused, "reason")


def _quota(sources: Sources) -> Iterator[Metric]:
    store = sources.quota_store
    if store is not None:
        what = "0: the shared store is unavailable, and this replica counts its share by itself."
        yield _gauge("quota_store_up", what, not store.degraded)
        yield _counter("quota_store_losses", "Times that the shared store became unavailable.", store.losses)


def _keys(sources: Sources) -> Iterator[Metric]:
    if not sources.key_sources:
        return
    found = sources.key_sources
    ages = {issuer: age for issuer, keys in found.items() if (age := keys.age_seconds) is not None}
    yield _gauge("jwks_age_seconds", "Seconds since the keys of an issuer were fetched.", ages, "issuer")
    what = "0: the keys of an issuer are missing or stale, and its tokens cannot be verified."
    yield _gauge("jwks_up", what, {issuer: not keys.trouble for issuer, keys in found.items()}, "issuer")
    what = "1: the last attempt to fetch the keys of an issuer failed."
    yield _gauge("jwks_fetch_failing", what, {issuer: bool(keys.last_error) for issuer, keys in found.items()}, "issuer")


def _antivirus(sources: Sources) -> Iterator[Metric]:
    if sources.antivirus is None:
        return
    state = sources.antivirus()
    yield _gauge("antivirus_up", "0: the virus scanner does not answer.", state.healthy)
    yield _gauge("antivirus_connections", "Connections to the virus scanner.", state.connections)
    if state.signatures_age is not None:
        yield _gauge("antivirus_signature_age_seconds", "Seconds since the signatures were made.", state.signatures_age)
    outcomes = {outcome: state.counts.get(outcome, 0) for outcome in _OUTCOMES}
    yield _counter("antivirus_scans", "Uploads to be scanned, by outcome.", outcomes, "outcome")
    yield _counter("antivirus_scan_seconds", "Seconds spent on scanning uploads.", state.scan_seconds)


def _caches(sources: Sources) -> Iterator[Metric]:
    if sources.caches:
        found = {name: read() for name, read in sources.caches.items()}
        hits = {name: counts.hits for name, counts in found.items()}
        misses = {name: counts.misses for name, counts in found.items()}
        entries = {name: counts.entries for name, counts in found.items()}
        yield _counter("cache_hits", "Look-ups that a cache answered.", hits, "cache")
        yield _counter("cache_misses", "Look-ups that it did not answer.", misses, "cache")
        yield _gauge("cache_entries", "Entries in a cache.", entries, "cache")


_READERS: Final[Mapping[str, Callable[[Sources], Iterator[Metric]]]] = {
    "process": _process,
    "connections": _connections,
    "engine": _engine,
    "workers": _workers,
    "exempt": _exempt,
    "overload": _overload,
    "quota": _quota,
    "keys": _keys,
    "antivirus": _antivirus,
    "caches": _caches,
}
