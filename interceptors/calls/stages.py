"""Measures the stages of a call where the work is done; metrics, logs and traces read them from the call.

Where a call is traced, the tracing interceptor leaves a hook in its context; otherwise a stage costs two readings of the clock.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import TypeAlias

from interceptors.calls.call import Attribute, StageTiming, current_call

_REASON = re.compile(r"[A-Z][A-Z0-9_]{1,63}")

MAX_STAGES = 1024
"""Stages kept of one call: a recording of four hours has 480 windows. Further ones are dropped."""

EndStage: TypeAlias = Callable[[StageTiming], None]
StageHook: TypeAlias = Callable[[StageTiming], EndStage]
"""Called with a stage that begins; what it returns is called when that stage has ended."""

_hook: ContextVar[StageHook | None] = ContextVar("stage_hook", default=None)


def trace_stages(hook: StageHook) -> None:
    """For the rest of this call and every task it starts; there is nothing to undo, see `enter_call`."""
    _hook.set(hook)


class stage:  # noqa: N801 - used as a statement: with stage("decode")
    """Measures the block it is entered for and appends it to the stages of the call that this task serves.

    `with stage("decode", bytes=n) as decoding: ...; decoding.attributes["container"] = "wav"`. An exception that leaves the
    block is recorded by its reason. Outside of a call the block is measured all the same.
    """

    __slots__ = ("_on_end", "_timing")

    def __init__(self, name: str, **attributes: Attribute) -> None:
        self._timing = StageTiming(name, attributes)
        self._on_end: EndStage | None = None

    def __enter__(self) -> StageTiming:
        self._timing.began = time.perf_counter()
        hook = _hook.get()
        if hook is not None:
            self._on_end = hook(self._timing)
        return self._timing

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._timing.seconds = time.perf_counter() - self._timing.began
        if error is not None:
            self._timing.error = reason_of(error)
        _keep(self._timing, self._on_end)


def add_stage(name: str, began: float, seconds: float, error: str = "", **attributes: Attribute) -> StageTiming:
    """A stage that is over, as measured by another process or a shared batch. `began` by time.perf_counter()."""
    added = StageTiming(name, attributes, began, error=error)
    hook = _hook.get()
    on_end = hook(added) if hook is not None else None
    added.seconds = seconds
    _keep(added, on_end)
    return added


def reason_of(error: BaseException) -> str:
    """The reason sent to the client, where the error has one, else its class; never its text, which may quote the request."""
    reason = getattr(error, "reason", None)
    # UnicodeDecodeError and ssl.SSLError have a `reason` too, which is a text.
    return reason if isinstance(reason, str) and _REASON.fullmatch(reason) else type(error).__name__


def _keep(timing: StageTiming, on_end: EndStage | None) -> None:
    call = current_call()
    if call is not None and len(call.stages) < MAX_STAGES:
        call.stages.append(timing)
    if on_end is not None:
        on_end(timing)
