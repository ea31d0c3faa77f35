"""Traces of calls and of batches, as plain values.

No library's span is made while a call is served: most traces are not kept, and the call measures its stages anyway. The exporter
makes spans of the traces that are kept, on its own thread.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import grpc

from interceptors.calls.call import Attribute, StageTiming
from interceptors.calls.stages import EndStage
from interceptors.tracing.headers import Parent

MAX_SPANS = 1024
"""Stages kept of one call; further ones are only counted."""
_MAX_BATCHES = 64
"""Kept of one call."""


class SpanRef(NamedTuple):
    """The ids of one span."""

    trace_id: int
    span_id: int
    sampled: bool

    @property
    def trace(self) -> str:
        """The id of the trace as in logs and headers: 32 hexadecimal digits."""
        return f"{self.trace_id:032x}"

    @property
    def span(self) -> str:
        """16 hexadecimal digits."""
        return f"{self.span_id:016x}"

    @property
    def traceparent(self) -> str:
        """The W3C header for an outgoing call. Not sampled if the trace may only be kept for how it ends."""
        return f"00-{self.trace}-{self.span}-{int(self.sampled):02x}"


@dataclass(eq=False, slots=True)
class StageSpan:
    """A stage that has ended, with its place in the trace."""

    stage: StageTiming
    span_id: int
    parent_id: int


@dataclass(eq=False, slots=True)
class BatchTrace:
    """One batch. A trace of its own, linked to its calls: a span has one parent."""

    span: SpanRef
    calls: Sequence[SpanRef]
    ended_ns: int
    """Since 1970."""
    seconds: float
    attributes: dict[str, Attribute]
    failed: bool
    delivered: bool = False

    @property
    def size(self) -> int:
        """Spans."""
        return 1


@dataclass(eq=False, slots=True)
class CallTrace:
    """One call. `name` is "" for a method that is not served."""

    name: str
    method: str
    peer: str
    span: SpanRef
    parent: Parent | None
    began: float
    """By time.perf_counter()."""
    began_ns: int
    """Since 1970. All times of the call are offsets from it, so that setting the clock does not tear the trace apart."""
    request_id: str = ""
    user_agent: str = ""
    protocol: str = "grpc"
    """See Call."""
    principal: str = ""
    seconds: float = 0.0
    code: grpc.StatusCode = grpc.StatusCode.OK
    reason: str = ""
    """Reason of the refusal or failure, for programs."""
    exception: str = ""
    """Class of the exception, if it is a bug."""
    why: str = ""
    """It is kept: "sampled", "error" or "slow"."""
    stage_spans: list[StageSpan] = field(default_factory=list)
    left_out: int = 0
    """Stages beyond MAX_SPANS."""
    batches: list[BatchTrace] = field(default_factory=list)
    open: bool = True

    @property
    def size(self) -> int:
        """Spans."""
        return 1 + len(self.stage_spans)

    def begin_stage(self, stage: StageTiming) -> EndStage:
        """A StageHook. Stages that this task begins before the new one ends are its children."""
        above = _at.get()
        span_id = new_id(64)
        parent_id = above.span_id if above is not None and above.call is self else self.span.span_id
        _at.set(_At(self, span_id))

        def end(ended: StageTiming) -> None:
            # Without a token: an unfinished generator ends in another context, where a reset by token would raise.
            _at.set(above)
            if not self.open:
                return
            if len(self.stage_spans) < MAX_SPANS:
                self.stage_spans.append(StageSpan(ended, span_id, parent_id))
            else:
                self.left_out += 1

        return end

    def add_batch(self, batch: BatchTrace) -> None:
        """A batch that this call was in."""
        if self.open and len(self.batches) < _MAX_BATCHES:
            self.batches.append(batch)


Deliverable: TypeAlias = CallTrace | BatchTrace
Deliver: TypeAlias = Callable[[Deliverable], None]
"""Takes a trace that is kept. Must not block and must not raise."""


class _At(NamedTuple):
    call: CallTrace
    span_id: int


_at: ContextVar[_At | None] = ContextVar("trace", default=None)


def enter_trace(trace: CallTrace) -> None:
    """For the rest of this call and every task it starts."""
    _at.set(_At(trace, trace.span.span_id))


def current_trace() -> CallTrace | None:
    """Of the call this task works for; None if it is not traced."""
    at = _at.get()
    return at.call if at is not None else None


def current_span() -> SpanRef | None:
    """Of the stage this task is in, for a log line or an outgoing call; None if the call is not traced."""
    at = _at.get()
    return at.call.span._replace(span_id=at.span_id) if at is not None else None


def sampled_trace_id() -> str:
    """Of the call this task works for, "" if it is not sampled: the exemplar of a metric should lead to a trace that exists."""
    at = _at.get()
    return at.call.span.trace if at is not None and at.call.span.sampled else ""


def new_id(bits: int) -> int:
    """Never 0, which means no id."""
    return random.getrandbits(bits) or 1


class Batches:
    """Makes the traces of batches and delivers those that are kept."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver

    def record(self, calls: Sequence[CallTrace | None], seconds: float, *, failed: bool, **attributes: Attribute) -> None:
        """A batch of `calls` ended now, after `seconds`. Delivered if one of them is sampled, else as soon as one is kept."""
        of_calls = {id(call): call for call in calls if call is not None}.values()  # windows of one call share it
        if not of_calls:
            return
        sampled = any(call.span.sampled for call in of_calls)
        span = SpanRef(new_id(128), new_id(64), sampled)
        batch = BatchTrace(span, [call.span for call in of_calls], time.time_ns(), seconds, attributes, failed, delivered=sampled)
        for call in of_calls:
            call.add_batch(batch)
        if sampled:
            self._deliver(batch)
