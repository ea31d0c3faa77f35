"""A call is one span in its caller's trace, and each of its stages one below it.

By the semantic conventions for RPC of OpenTelemetry 1.44: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from interceptors.base import CallInterceptor, Context
from interceptors.call import Call, current_call
from interceptors.ending import Describe, ended_with
from interceptors.refusal import RefusedError
from interceptors.sampling import Sampling
from interceptors.stages import trace_stages
from interceptors.trace_context import Format, TraceHeaders
from interceptors.traces import CallTrace, Deliver, SpanRef, enter_trace, new_id

log = logging.getLogger(__name__)

_DETAILS = "grpc-status-details-bin"


class Tracing(CallInterceptor):
    """Stands right inside of the request id, so that whatever refuses a call below does so in its trace.

    `describe`: the status an exception is told as. `served`: the methods there are; the spans of calls to others share
    one name. `exempt` are not traced: a probe every second is of no use to anybody. `formats`: of the headers read.
    `principals`: whether spans say who called; what holds the traces may be another company's.
    """

    def __init__(
        self,
        deliver: Deliver,
        sampling: Sampling,
        describe: Describe,
        *,
        served: Collection[str],
        exempt: Collection[str] = (),
        formats: Sequence[Format] = ("tracecontext",),
        principals: bool = False,
    ) -> None:
        self._deliver = deliver
        self._sampling = sampling
        self._describe = describe
        self._names = {method: method.removeprefix("/") for method in served}
        self._exempt = frozenset(exempt)
        self._headers = TraceHeaders(formats)
        self._principals = principals

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
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
            except Exception:  # a call that went well must not fail for its trace
                log.exception("the trace of a call is lost")

    def _begin(self, method: str, context: Context, call: Call | None) -> CallTrace:
        parent = self._headers.parent(context.invocation_metadata())
        trace_id = (parent.trace_id if parent is not None else 0) or new_id(128)
        span = SpanRef(trace_id, new_id(64), self._sampling.chosen(trace_id, parent))
        peer = call.peer if call is not None else context.peer()
        known = parent if parent is not None and parent.trace_id else None
        trace = CallTrace(self._names.get(method, ""), method, peer, span, known, time.perf_counter(), time.time_ns())
        if call is not None:
            trace.request_id, trace.user_agent = call.request_id, call.user_agent
        enter_trace(trace)
        if span.sampled or self._sampling.buffers:
            trace_stages(trace.begin_stage)
        return trace

    def _end(
        self, trace: CallTrace, context: Context, call: Call | None, error: BaseException | None, allowed: float | None
    ) -> None:
        trace.seconds = time.perf_counter() - trace.began
        trace.open = False  # what a task left behind does from here on is not the call's
        trace.code = ended_with(context, error, self._describe, allowed)
        trace.why = "sampled" if trace.span.sampled else self._sampling.kept(trace.code, trace.seconds)
        if not trace.why:
            return
        trace.reason, trace.exception = self._reason(context, error, trace.code)
        if self._principals and call is not None and call.principal is not None:
            trace.principal = call.principal.name
        self._deliver(trace)
        for batch in trace.batches:
            if not batch.delivered:
                batch.delivered = True
                self._deliver(batch)

    def _reason(self, context: Context, error: BaseException | None, code: grpc.StatusCode) -> tuple[str, str]:
        """What the caller was told for programs, nothing where it had left; and the class of an exception nobody expected.

        This stands inside of the recovery: refusals and bugs are exceptions yet. Of these, never the text, which may quote
        a request.
        """
        if isinstance(error, RefusedError):
            return error.reason if error.code is code else "", ""
        if isinstance(error, Exception) and not isinstance(error, aio.AbortError | aio.BaseError):
            status = self._describe(error)
            bug = status.code == grpc.StatusCode.INTERNAL.value[0]
            return _error_info(status) if status.code == code.value[0] else "", type(error).__name__ if bug else ""
        return _sent_reason(context), ""


def _sent_reason(context: Context) -> str:
    """Of a call that was ended by `interceptors.abort`, which may have been from outside."""
    for name, value in context.trailing_metadata() or ():
        if name == _DETAILS and isinstance(value, bytes):
            return _error_info(status_pb2.Status.FromString(value))
    return ""


def _error_info(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            return str(info.reason)
    return ""
