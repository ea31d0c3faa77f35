"""Takes the traces that are to be kept to a collector, by OTLP over gRPC, on a thread of its own.

A collector that is down or slow costs calls nothing: what waits for it is bounded, and what is given up is counted.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from aligner_svc.errors import StartError
from aligner_svc.telemetry.traces.spans import SpanMaker
from interceptors.tracing.call_trace import Deliverable

log = logging.getLogger("aligner_svc.telemetry.tracing")

_LAST_WORD = 1.0
"""Seconds the thread has to notice that its channel was closed."""


class TracingError(StartError):
    """Traces cannot be sent as the settings have it; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Collector:
    """Where traces go. "http://" is plaintext and "https://" TLS; `headers` may hold its secret."""

    endpoint: str
    """http(s)://HOST:PORT."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca: Path | None = None
    """PEM; None: the authorities that gRPC comes with."""
    certificate: Path | None = None
    """PEM, for a collector that wants to know who we are; with `key`."""
    key: Path | None = None
    timeout: float = 5.0
    """Seconds one delivery may take, tries included."""


def otlp_exporter(collector: Collector) -> SpanExporter:
    """By OTLP over gRPC. Nothing is connected yet. Raises TracingError."""
    scheme, host = _parts(collector.endpoint)
    secure = scheme == "https"
    if collector.headers and not secure and not _is_loopback(host):
        raise TracingError(f"headers for the collector may hold a secret and would go to {host} in clear: use https://")
    # It warns of every try; a collector that is down for a night is said once here, and counted.
    logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter").setLevel(logging.CRITICAL)
    return OTLPSpanExporter(
        endpoint=collector.endpoint,
        insecure=not secure,
        credentials=_credentials(collector) if secure else None,
        headers=tuple((name.lower(), value) for name, value in collector.headers.items()) or None,
        timeout=collector.timeout,
        # In plaintext it is next door: with http_proxy set gRPC would go there through the proxy.
        channel_options=None if secure else (("grpc.enable_http_proxy", 0),),  # type: ignore[arg-type] # it says str
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _parts(endpoint: str) -> tuple[str, str]:
    """Scheme and host."""
    wanted = f"the collector's address '{endpoint}' is not one: write http://HOST:PORT or https://HOST:PORT"
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        raise TracingError(wanted) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port is None or parts.path.strip("/") or parts.username:
        raise TracingError(wanted)
    return parts.scheme, parts.hostname


def _credentials(collector: Collector) -> grpc.ChannelCredentials:
    def read(file: Path | None) -> bytes | None:
        try:
            return None if file is None else file.read_bytes()
        except OSError as error:
            raise TracingError(f"cannot read {file}: {error.strerror}") from None

    return grpc.ssl_channel_credentials(read(collector.ca), read(collector.key), read(collector.certificate))


@dataclass(frozen=True, slots=True)
class TraceCounts:
    """Spans since the start, and how many wait. What was neither delivered nor waits is lost."""

    delivered: int
    dropped: int
    """There was no room for them, or no time at the end: the collector is too slow, or down."""
    failed: int
    """The collector did not take them."""
    waiting: int


class TraceExport:
    """`deliver` is for the event loop and never waits. `start` before the first call, `close` after the last."""

    def __init__(
        self,
        exporter: SpanExporter,
        resource: Resource,
        *,
        server: Callable[[], str] = lambda: "",
        room: int = 8192,
        batch: int = 512,
        every: float = 2.0,
        flush: float = 3.0,
    ) -> None:
        """`server`: HOST:PORT of this one. `room`: spans that may wait, about 1 KB each; over it the oldest are dropped.

        `batch`: spans of one message, and a call's are not parted. `every`: seconds that a span waits for others at most.
        `flush`: seconds that `close` waits for what is left to be taken.
        """
        self._exporter = exporter
        self._make = SpanMaker(resource, server)
        self._room = room
        self._batch = batch
        self._every = every
        self._flush = flush
        self._lock = threading.Lock()
        self._queue: deque[Deliverable] = deque()
        self._waiting = 0
        self._delivered = self._dropped = self._failed = 0
        self._wake = threading.Event()
        self._stop_by: float | None = None
        self._failing = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="trace-export", daemon=True)

    async def start(self) -> None:
        """The collector does not have to be there."""
        self._thread.start()

    def deliver(self, trace: Deliverable) -> None:
        """Queue it."""
        with self._lock:
            if self._closed:
                self._dropped += trace.size
                return
            self._queue.append(trace)
            self._waiting += trace.size
            while self._waiting > self._room:
                oldest = self._queue.popleft()
                self._waiting -= oldest.size
                self._dropped += oldest.size
            full = self._waiting >= self._batch
        if full:
            self._wake.set()

    @property
    def counts(self) -> TraceCounts:
        """For metrics."""
        with self._lock:
            return TraceCounts(self._delivered, self._dropped, self._failed, self._waiting)

    async def close(self) -> None:
        """Send what is left, for `flush` seconds and about one more at most. Idempotent."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._stop_by = time.monotonic() + self._flush
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(self._flush)
        self._exporter.shutdown()  # closes the channel, which ends a delivery that hangs
        if self._thread.ident is not None:
            self._thread.join(_LAST_WORD)
        with self._lock:
            self._dropped += self._waiting
            self._waiting = 0
            self._queue.clear()

    def _run(self) -> None:
        while True:
            self._wake.wait(self._every)
            self._wake.clear()
            stopping = self._stop_by is not None
            while batch := self._take():
                if self._stop_by is not None and time.monotonic() >= self._stop_by:
                    self._give_up(batch)
                    return
                self._send(batch)
            if stopping:
                return

    def _take(self) -> list[Deliverable]:
        taken: list[Deliverable] = []
        size = 0
        with self._lock:
            while self._queue and (not taken or size + self._queue[0].size <= self._batch):
                taken.append(self._queue.popleft())
                size += taken[-1].size
            self._waiting -= size
        return taken

    def _give_up(self, batch: list[Deliverable]) -> None:
        with self._lock:
            self._dropped += sum(trace.size for trace in batch)

    def _send(self, batch: list[Deliverable]) -> None:
        spans: list[ReadableSpan] = []
        sent = False
        try:
            for trace in batch:
                spans += self._make.spans(trace)
            sent = self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception:  # whatever a library raises; the thread must live
            log.exception("traces could not be sent")
        with self._lock:
            if sent:
                self._delivered += len(spans)
            else:
                self._failed += sum(trace.size for trace in batch)
        if sent == self._failing:
            self._failing = not sent
            if sent:
                log.info("the collector takes traces again")
            else:
                log.warning("the collector does not take traces; they are given up, and counted, until it does")
