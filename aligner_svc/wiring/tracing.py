"""Traces as the settings want them: the guard that makes them, what sends them, and what batches are told to."""

from __future__ import annotations

import socket
from collections.abc import Callable

from aligner_svc.config import Settings
from aligner_svc.engines.batching import BatchWatch
from aligner_svc.rpc.services import EXEMPT, SERVED
from aligner_svc.telemetry.traces.batches import trace_batches
from aligner_svc.telemetry.traces.export import Collector, TraceExport, TracingError, otlp_exporter
from aligner_svc.telemetry.traces.spans import resource
from interceptors.tracing.call_trace import current_trace
from interceptors.tracing.interceptor import Tracing
from interceptors.tracing.sampling import Sampling, SamplingRules

__all__ = ["Traces", "TracingError"]


class Traces:
    """`export` to start and close with the server, `interceptor` for the chain, `watch` for the engine's batches."""

    def __init__(self, settings: Settings, address: Callable[[], str]) -> None:
        """`address`: HOST:PORT of this server, once it has one. Raises TracingError."""
        wanted = settings.tracing
        assert wanted.endpoint is not None
        collector = Collector(wanted.endpoint, _headers(wanted.headers.get_secret_value()), wanted.ca)
        name = socket.gethostname()
        self.export = TraceExport(otlp_exporter(collector), resource("aligner-svc", name), server=address)
        rules = SamplingRules(wanted.ratio, follow_caller=wanted.follow_caller, keep_slower=wanted.keep_slower)
        self.interceptor = Tracing(self.export.deliver, Sampling(rules), served=SERVED, exempt=EXEMPT, formats=wanted.formats)
        self.watch = BatchWatch(trace_batches(self.export.deliver), current_trace)


def _headers(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(equals for _, equals, _ in pairs):
        raise TracingError("tracing.headers: name=value pairs with commas between them are needed")
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
