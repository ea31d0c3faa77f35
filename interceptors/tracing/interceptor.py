"""Traces each call: one span in the client's trace, and a child for each of its stages.

Names are OpenTelemetry's for RPC, 1.44: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from interceptors.calls.call import Call, Context, current_call
from interceptors.calls.outcome import final_code, is_bug, reported_reason
from interceptors.calls.stages import trace_stages
from interceptors.handlers.base import CallInterceptor
from interceptors.tracing.call_trace import CallTrace, Deliver, SpanRef, enter_trace, new_id
from interceptors.tracing.headers import Format, TraceHeaders
from interceptors.tracing.sampling import Sampling

log = logging.getLogger("interceptors.tracing")


class Tracing(CallInterceptor):
    """Placed directly inside RequestId, so that refusals by the other guards are traced.

    `served`: the server's methods; spans of calls to other methods share one name. `exempt`: methods that are not traced, such
    as health checks. `formats` of the headers to read. `principals`: whether spans name the principal; traces may be stored by
    another company.
    """

    def __init__(
        self,
        deliver: Deliver,
        sampling: Sampling,
        *,
        served: Collection[str],
        exempt: Collection[str] = (),
        formats: Sequence[Format] = ("tracecontext",),
        principals: bool = False,
    ) -> None:
        self._deliver = deliver
        self._sampling = sampling
        self._names = {method: method.removeprefix("/") for method in served}
        self._exempt = frozenset(exempt)
        self._headers = TraceHeaders(formats)
        self._principals = principals

    @contextmanager
    def around(self, method: str, context: Context) -> Iterator[None]:
        if method in self._exempt:
            yield
            return
        call = current_call()
        trace, allowed = self._begin(method, context, call), context.time_remaining()
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            try:
                self._end(trace, context, call, error, allowed)
            except Exception:  # a call must not fail because of its trace
                log.exception("the trace of a call is lost")

    def _begin(self, method: str, context: Context, call: Call | None) -> CallTrace:
        parent = self._headers.parent(context.invocation_metadata())
        trace_id = (parent.trace_id if parent is not None else 0) or new_id(128)
        span = SpanRef(trace_id, new_id(64), self._sampling.chosen(trace_id, parent))
        peer = call.peer if call is not None else context.peer()
        known = parent if parent is not None and parent.trace_id else None
        trace = CallTrace(self._names.get(method, ""), method, peer, span, known, time.perf_counter(), time.time_ns())
        if call is not None:
            trace.request_id, trace.user_agent, trace.protocol = call.request_id, call.user_agent, call.protocol
        enter_trace(trace)
        if span.sampled or self._sampling.buffers:
            trace_stages(trace.begin_stage)
        return trace

    def _end(
        self, trace: CallTrace, context: Context, call: Call | None, error: BaseException | None, allowed: float | None
    ) -> None:
        trace.seconds = time.perf_counter() - trace.began
        trace.open = False  # stages of tasks that outlive the call are not recorded
        trace.code = final_code(context, error, allowed)
        trace.why = "sampled" if trace.span.sampled else self._sampling.kept(trace.code, trace.seconds)
        if not trace.why:
            return
        trace.reason = reported_reason(context, error, trace.code)
        trace.exception = type(error).__name__ if is_bug(error) else ""  # never its text, which may quote a request
        if self._principals and call is not None and call.principal is not None:
            trace.principal = call.principal.name
        self._deliver(trace)
        for batch in trace.batches:
            if not batch.delivered:
                batch.delivered = True
                self._deliver(batch)
