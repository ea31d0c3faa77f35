"""Sends the traces that are kept to a collector, by OTLP over gRPC, through OpenTelemetry's BatchSpanProcessor.

A collector that is down or slow costs calls nothing: what waits for it is bounded, and what is dropped is counted.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags

from aligner_svc.config.section import is_loopback
from aligner_svc.errors import StartError
from aligner_svc.telemetry.traces.spans import SpanMaker
from interceptors.tracing.call_trace import Deliverable

log = logging.getLogger("aligner_svc.telemetry.tracing")

_TYPICAL_SPANS = 8
"""Of one call."""
_SAMPLED = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
_NO_RESOURCE = Resource.get_empty()


class TracingError(StartError):
    """Traces cannot be sent with these settings; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Collector:
    """Where traces go. "http://" is plaintext and "https://" TLS; `headers` may hold a secret."""

    endpoint: str
    """http(s)://HOST:PORT."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca: Path | None = None
    """PEM; None: the authorities that gRPC comes with."""
    timeout: float = 5.0
    """Seconds for one export, retries included."""


def otlp_exporter(collector: Collector) -> SpanExporter:
    """By OTLP over gRPC. Does not connect yet. Raises TracingError."""
    scheme, host = _parts(collector.endpoint)
    secure = scheme == "https"
    if collector.headers and not secure and not is_loopback(host):
        raise TracingError(f"headers for the collector may hold a secret and would go to {host} in clear: use https://")
    # It warns of every attempt; TraceExport logs an outage once and counts the rest.
    logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter").setLevel(logging.CRITICAL)
    return OTLPSpanExporter(
        endpoint=collector.endpoint,
        insecure=not secure,
        credentials=_credentials(collector.ca) if secure else None,
        headers=tuple((name.lower(), value) for name, value in collector.headers.items()) or None,
        timeout=collector.timeout,
        # A plaintext collector is on this host or network: with http_proxy set gRPC would go there through the proxy.
        channel_options=None if secure else (("grpc.enable_http_proxy", 0),),  # type: ignore[arg-type] # it says str
    )


def _parts(endpoint: str) -> tuple[str, str]:
    """Scheme and host."""
    wrong = TracingError(f"the collector's address '{endpoint}' is not valid: write http://HOST:PORT or https://HOST:PORT")
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port is None or parts.path.strip("/") or parts.username:
        raise wrong
    return parts.scheme, parts.hostname


def _credentials(ca: Path | None) -> grpc.ChannelCredentials:
    try:
        return grpc.ssl_channel_credentials(None if ca is None else ca.read_bytes())
    except OSError as error:
        raise TracingError(f"cannot read {ca}: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class TraceCounts:
    """Spans since the start, and how many wait. What was neither delivered nor waits is lost."""

    delivered: int
    dropped: int
    """There was no room for them, or no time at the end: the collector is too slow, or down."""
    failed: int
    """The collector did not accept them."""
    waiting: int


class _Queued(ReadableSpan):
    """A trace in BatchSpanProcessor's queue, marked as sampled: calls kept for how they ended may not be, and would be dropped.

    Its spans are made on the thread: that is most of what tracing costs a call.
    """

    def __init__(self, trace: Deliverable) -> None:
        super().__init__("queued", _SAMPLED, resource=_NO_RESOURCE)
        self.trace = trace


class TraceExport(SpanExporter):
    """`deliver` is for the event loop and never waits. `start` before the first call, `close` after the last.

    BatchSpanProcessor has the queue and the thread, which calls `export`. It does not report what it drops: traces are
    counted here, and those without room do not enter its queue.
    """

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
        """`server`: HOST:PORT of this one. `room`: spans that may wait, about 1 KB each; further ones are dropped.

        `batch`: maximum spans in one message; a call's spans stay together. `every`: seconds a span waits for others at most.
        `flush`: seconds that `close` waits for what is left to be sent.
        """
        self._exporter = exporter
        self._make = SpanMaker(resource, server)
        self._room = room
        self._batch = batch
        self._every = every
        self._flush = flush
        self._lock = threading.Lock()
        self._waiting = self._delivered = self._dropped = self._failed = 0
        self._failing = self._closed = self._stopped = False
        self._processor: BatchSpanProcessor | None = None

    async def start(self) -> None:
        """The collector does not have to be reachable."""
        self._processor = BatchSpanProcessor(
            self,
            max_queue_size=self._room,  # in traces, of one span at least: never reached
            max_export_batch_size=max(1, self._batch // _TYPICAL_SPANS),
            schedule_delay_millis=self._every * 1000,
            export_timeout_millis=0,  # unused there; given, so that no environment variable is read
        )

    def deliver(self, trace: Deliverable) -> None:
        """Queue it, or drop it where there is no room."""
        with self._lock:
            if self._processor is None or self._closed or self._waiting + trace.size > self._room:
                self._dropped += trace.size
                return
            self._waiting += trace.size
        self._processor.on_end(_Queued(trace))

    @property
    def counts(self) -> TraceCounts:
        """For metrics."""
        with self._lock:
            return TraceCounts(self._delivered, self._dropped, self._failed, self._waiting)

    async def close(self) -> None:
        """Send what is left, for `flush` seconds at most. Idempotent."""
        if self._closed:
            return
        self._closed = True
        stopping = asyncio.get_running_loop().call_later(self._flush, self.shutdown)
        if self._processor is not None:
            await asyncio.to_thread(self._processor.shutdown)
        stopping.cancel()
        self.shutdown()
        with self._lock:
            self._dropped += self._waiting
            self._waiting = 0

    def shutdown(self) -> None:
        """Close the exporter's channel, which ends a delivery that hangs. Idempotent."""
        if not self._stopped:
            self._stopped = True
            self._exporter.shutdown()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Make the spans of queued traces and send them, in messages of at most `batch` unless one call has more."""
        traces = deque(queued.trace for queued in spans if isinstance(queued, _Queued))
        while traces:
            message = [traces.popleft()]
            size = message[0].size
            while traces and size + traces[0].size <= self._batch:
                message.append(traces.popleft())
                size += message[-1].size
            self._send(message, size)
        return SpanExportResult.SUCCESS

    def _send(self, traces: Sequence[Deliverable], size: int) -> None:
        with self._lock:
            if self._stopped:
                return  # `close` counts what waits as dropped
            self._waiting -= size
        sent = False
        try:
            made = [span for trace in traces for span in self._make.spans(trace)]
            sent = self._exporter.export(made) is SpanExportResult.SUCCESS
        except Exception:  # whatever a library raises
            log.exception("traces could not be sent")
        with self._lock:
            if sent:
                self._delivered += size
            else:
                self._failed += size
        if sent == self._failing:
            self._failing = not sent
            if sent:
                log.info("the collector accepts traces again")
            else:
                log.warning("the collector does not accept traces; until it does they are dropped and counted")
