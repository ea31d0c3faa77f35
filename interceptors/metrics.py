"""Counts calls, their outcomes and durations, under the metric names of go-grpc-middleware.

Placed outside the guards, so that refused calls are counted too. The messages, which cannot be counted there, are counted
by interceptors.handlers.message_counter.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import grpc
from prometheus_client import CollectorRegistry, Counter, Histogram

from interceptors.calls.call import Call, Context, current_call
from interceptors.calls.outcome import final_code
from interceptors.handlers.base import CallInterceptor, Wrapping
from interceptors.handlers.message_counter import MessageCounter, Tally

log = logging.getLogger(__name__)

UNKNOWN: Final = "unknown"
"""Service and method of calls to methods that are not served: clients choose those names, and each would be a series."""

HANDLING_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5),
    *(5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
"""Seconds. Finest where most calls are: a refusal takes 1 ms and a clip of 4 s 70 ms; recordings of hours take minutes."""

CODES: Final[Mapping[grpc.StatusCode, str]] = {
    code: "".join(word.capitalize() for word in code.name.split("_")) for code in grpc.StatusCode
} | {grpc.StatusCode.OK: "OK", grpc.StatusCode.CANCELLED: "Canceled"}
"""As spelled in Go, and so in existing dashboards and alerts for these metrics."""


@dataclass(frozen=True, slots=True)
class CompletedCall:
    """One call that has ended."""

    method: str
    """"/package.Service/Method" as served; UNKNOWN for all others."""
    code: grpc.StatusCode
    seconds: float
    call: Call | None
    error: BaseException | None
    trace_id: str
    """Empty if the call is not traced, or its trace is not kept."""


class RpcMetrics(CallInterceptor):
    """Counts calls; `messages` counts their messages.

    `methods`: the served methods and their grpc_type (see `method_types`); each has its series from the start, so that the
    first failure is an increase and not a new series. `trace_id`: of the current call, "" without one; the exemplar of its
    duration. `on_end` is called for every call; its exceptions are logged and do not affect the call. `clock`: monotonic,
    seconds.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        methods: Mapping[str, str],
        *,
        trace_id: Callable[[], str] = lambda: "",
        on_end: Callable[[CompletedCall], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        series = _Series(registry)
        self._unknown = series.of(UNKNOWN, "unary")
        self._methods = {method: series.of(method, kind) for method, kind in methods.items()}
        self.messages: Wrapping = MessageCounter(self._tallies)
        """To be placed innermost, behind interceptors.handlers.requests."""
        self.trace_id = trace_id
        self.on_end = on_end
        self.clock = clock

    def around(self, method: str, context: Context) -> AbstractContextManager[None]:
        return _CallTimer(self, self._find(method), context)

    def _find(self, method: str) -> _Counted:
        return self._methods.get(method, self._unknown)

    def _tallies(self, method: str) -> tuple[Tally, Tally]:
        counted = self._find(method)
        return counted.received.inc, counted.sent.inc


class _Series:
    """The five metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("grpc_type", "grpc_service", "grpc_method")

        def counter(name: str, what: str, *further: str) -> Counter:
            return Counter(f"grpc_server_{name}", what, (*labels, *further), registry=registry)

        self._started = counter("started_total", "Calls that began.")
        self._handled = counter("handled_total", "Calls that ended, by the status their caller saw.", "grpc_code")
        self._received = counter("msg_received_total", "Request messages that reached the servicer.")
        self._sent = counter("msg_sent_total", "Response messages that were sent.")
        what = "Seconds from a call's headers to its end, refused calls included."
        self._seconds = Histogram("grpc_server_handling_seconds", what, labels, buckets=HANDLING_BUCKETS, registry=registry)

    def of(self, method: str, kind: str) -> _Counted:
        service, _, name = method.removeprefix("/").rpartition("/")
        labels = (kind, service or UNKNOWN, name)
        return _Counted(
            method,
            self._started.labels(*labels),
            {code: self._handled.labels(*labels, text) for code, text in CODES.items()},
            self._received.labels(*labels),
            self._sent.labels(*labels),
            self._seconds.labels(*labels),
        )


@dataclass(frozen=True, slots=True)
class _Counted:
    """The series of one method, looked up once: a lookup by labels costs more than counting."""

    method: str
    started: Counter
    handled: Mapping[grpc.StatusCode, Counter]
    received: Counter
    sent: Counter
    seconds: Histogram


class _CallTimer(AbstractContextManager[None]):
    """One call. A class, since a generator costs three times as much."""

    __slots__ = ("_allowed", "_began", "_call", "_context", "_counted", "_metrics", "_trace_id")

    def __init__(self, metrics: RpcMetrics, counted: _Counted, context: Context) -> None:
        self._metrics = metrics
        self._counted = counted
        self._context = context

    def __enter__(self) -> None:
        # Read now: an abandoned stream is closed by the event loop, outside the context of the call.
        self._call = current_call()
        self._trace_id = self._metrics.trace_id()
        self._allowed = self._context.time_remaining()
        self._counted.started.inc()
        self._began = self._metrics.clock()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        metrics, counted, trace_id = self._metrics, self._counted, self._trace_id
        seconds = metrics.clock() - self._began
        code = final_code(self._context, error, self._allowed)
        counted.handled[code].inc()
        counted.seconds.observe(seconds, {"trace_id": trace_id} if trace_id else None)
        if metrics.on_end is not None:
            try:
                metrics.on_end(CompletedCall(counted.method, code, seconds, self._call, error, trace_id))
            except Exception:  # a call must not fail because of its metrics
                log.exception("could not count the end of a call")
