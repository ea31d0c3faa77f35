"""Builds tracing from the settings: the interceptor, the export, and the hook for the engine's batches."""

from __future__ import annotations

import socket
from collections.abc import Callable

from aligner_svc.config import Settings
from aligner_svc.engines.batch_report import BatchWatch
from aligner_svc.rpc.services import EXEMPT, SERVED
from aligner_svc.telemetry.traces.batches import trace_batches
from aligner_svc.telemetry.traces.export import Collector, TraceExport, TracingError, otlp_exporter
from aligner_svc.telemetry.traces.spans import resource
from interceptors.tracing.call_trace import current_trace
from interceptors.tracing.interceptor import Tracing
from interceptors.tracing.sampling import Sampling, SamplingRules


class Traces:
    """`export` to start and close with the server, `interceptor` for the chain, `watch` for the engine's batches."""

    def __init__(self, settings: Settings, address: Callable[[], str]) -> None:
        """`address`: HOST:PORT of this server, once it has one. Raises TracingError."""
        own = settings.tracing
        assert own.endpoint is not None
        exporter = otlp_exporter(Collector(own.endpoint, _headers(own.headers.get_secret_value()), own.ca))
        self.export = TraceExport(exporter, resource("aligner-svc", socket.gethostname()), server=address)
        rules = SamplingRules(own.ratio, follow_caller=own.follow_caller, keep_slower=own.keep_slower)
        self.interceptor = Tracing(self.export.deliver, Sampling(rules), served=SERVED, exempt=EXEMPT, formats=own.formats)
        self.watch = BatchWatch(trace_batches(self.export.deliver), current_trace)


def _headers(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(equals for _, equals, _ in pairs):
        raise TracingError("tracing.headers has to be name=value pairs separated by commas")
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
