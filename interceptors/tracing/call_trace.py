"""The trace of one call while it goes on, and of one batch of calls: plain values, until somebody delivers them.

No span of any library is made while a call is served: most calls are not kept, and what a call did is in its stages
already. Spans are made of it by whoever delivers it, on a thread of their own.
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
"""Of one call; further stages are counted alone."""
_MAX_BATCHES = 64
"""Of one call that are remembered."""


class SpanRef(NamedTuple):
    """One span, as others name it."""

    trace_id: int
    span_id: int
    sampled: bool

    @property
    def trace(self) -> str:
        """The trace's id as logs and headers write it: 32 hexadecimal digits."""
        return f"{self.trace_id:032x}"

    @property
    def span(self) -> str:
        """16 hexadecimal digits."""
        return f"{self.span_id:016x}"

    @property
    def traceparent(self) -> str:
        """The W3C header for a call to somebody else. What may yet be kept for its end is not sampled: they cannot know."""
        return f"00-{self.trace}-{self.span}-{int(self.sampled):02x}"


@dataclass(eq=False, slots=True)
class Ran:
    """A stage that has ended, as a span."""

    stage: StageTiming
    span_id: int
    parent_id: int


@dataclass(eq=False, slots=True)
class BatchTrace:
    """One batch, a trace of its own: it belongs to several calls, and a span has one parent."""

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
    """One call. `name` is "" for a method that nobody serves."""

    name: str
    method: str
    peer: str
    span: SpanRef
    parent: Parent | None
    began: float
    """By time.perf_counter()."""
    began_ns: int
    """Since 1970. Everything in the call is reckoned from here: a clock that is set does not tear it apart."""
    request_id: str = ""
    user_agent: str = ""
    principal: str = ""
    seconds: float = 0.0
    code: grpc.StatusCode = grpc.StatusCode.OK
    reason: str = ""
    """Why it was refused or failed, for programs."""
    exception: str = ""
    """Class of what was raised, where that was not meant to happen."""
    why: str = ""
    """Delivered because: "sampled", "error" or "slow"."""
    ran: list[Ran] = field(default_factory=list)
    left_out: int = 0
    """Stages over the most."""
    batches: list[BatchTrace] = field(default_factory=list)
    open: bool = True

    @property
    def size(self) -> int:
        """Spans."""
        return 1 + len(self.ran)

    def begin_stage(self, stage: StageTiming) -> EndStage:
        """A StageHook. The new stage is whatever this task does until it ends; what is begun within is its child."""
        above = _at.get()
        span_id = new_id(64)
        parent_id = above.span_id if above is not None and above.call is self else self.span.span_id
        _at.set(_At(self, span_id))

        def end(ended: StageTiming) -> None:
            # Not by a token: a generator that nobody finished ends in another context, which would raise.
            _at.set(above)
            if not self.open:
                return
            if len(self.ran) < MAX_SPANS:
                self.ran.append(Ran(ended, span_id, parent_id))
            else:
                self.left_out += 1

        return end

    def in_batch(self, batch: BatchTrace) -> None:
        """Remember a batch that worked for this call."""
        if self.open and len(self.batches) < _MAX_BATCHES:
            self.batches.append(batch)


Deliverable: TypeAlias = CallTrace | BatchTrace
Deliver: TypeAlias = Callable[[Deliverable], None]
"""Told of a trace that is to be kept. Must not block and must not raise."""


class _At(NamedTuple):
    call: CallTrace
    span_id: int


_at: ContextVar[_At | None] = ContextVar("trace", default=None)


def enter_trace(trace: CallTrace) -> None:
    """For the rest of this call and every task it starts."""
    _at.set(_At(trace, trace.span.span_id))


def current_trace() -> CallTrace | None:
    """Of the call this task works for; None where it is not traced."""
    at = _at.get()
    return at.call if at is not None else None


def current_span() -> SpanRef | None:
    """What this task is at, for a log line or a call to somebody else; None where it is not traced."""
    at = _at.get()
    return at.call.span._replace(span_id=at.span_id) if at is not None else None


def sampled_trace_id() -> str:
    """Of the call this task works for, "" where it was not chosen: a metric's exemplar should lead to a trace that is there."""
    at = _at.get()
    return at.call.span.trace if at is not None and at.call.span.sampled else ""


def new_id(bits: int) -> int:
    """Never 0, which means none."""
    return random.getrandbits(bits) or 1


class Batches:
    """Traces of batches: told of each when it has ended, with the calls it worked for as `current_trace` knew them."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver

    def ended(self, calls: Sequence[CallTrace | None], seconds: float, *, failed: bool, **attributes: Attribute) -> None:
        """A batch ended now, after `seconds`. It is delivered if one of its calls was chosen, else once one is kept."""
        of_calls = {id(call): call for call in calls if call is not None}.values()  # windows of one call share it
        if not of_calls:
            return
        sampled = any(call.span.sampled for call in of_calls)
        span = SpanRef(new_id(128), new_id(64), sampled)
        batch = BatchTrace(span, [call.span for call in of_calls], time.time_ns(), seconds, attributes, failed, delivered=sampled)
        for call in of_calls:
            call.in_batch(batch)
        if sampled:
            self._deliver(batch)
