"""What a call spends its time on, stage by stage: told by whoever does the work, read by metrics, logs and traces.

This file knows no tracing. Where calls are traced, the tracing interceptor leaves a hook in the context of the call;
where they are not, a stage costs two looks at the clock.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeAlias

from interceptors.calls.call import current_call

Attribute: TypeAlias = str | bool | int | float
"""What may be said of a stage. It leaves the process: never a transcript, a token, audio, or an exception's text."""

_REASON = re.compile(r"[A-Z][A-Z0-9_]{1,63}")

MOST = 1024
"""Stages of one call that are kept: a recording of four hours has 480 windows. Further ones are not."""


@dataclass(eq=False, slots=True)
class StageTiming:
    """One stretch of work for a call. Entered where the work begins, left where it ends."""

    name: str
    """One of a few fixed words: it becomes a label."""
    attributes: dict[str, Attribute] = field(default_factory=dict)
    """May be added to until the stage ends."""
    began: float = 0.0
    """By time.perf_counter()."""
    seconds: float = 0.0
    """0 until it has ended."""
    error: str = ""
    """Why it did not end well: the reason a caller is told, else the name of the exception's class. "" otherwise."""
    told: EndStage | None = None
    """What is waiting for its end."""

    def __enter__(self) -> StageTiming:
        self.began = time.perf_counter()
        traced = _hook.get()
        if traced is not None:
            self.told = traced(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.seconds = time.perf_counter() - self.began
        if error is not None:
            self.error = reason_of(error)
        _finish(self)


EndStage: TypeAlias = Callable[[StageTiming], None]
StageHook: TypeAlias = Callable[[StageTiming], EndStage]
"""Called with a stage that begins; what it returns is called when that one has ended."""

_hook: ContextVar[StageHook | None] = ContextVar("stage_hook", default=None)


def trace_stages(hook: StageHook) -> None:
    """For the rest of this call and every task it starts; there is nothing to undo, see `enter_call`."""
    _hook.set(hook)


def stage(name: str, **attributes: Attribute) -> StageTiming:
    """To be entered where the work begins and left where it ends.

    `with stage("decode", bytes=n) as decoding: ...; decoding.attributes["container"] = "wav"`. When it has ended it is
    appended to the stages of the call that this task serves, with its error if it raised one. Outside of a call it is
    measured all the same.
    """
    return StageTiming(name, attributes)


def add_stage(name: str, began: float, seconds: float, error: str = "", **attributes: Attribute) -> StageTiming:
    """A stage that is over: what another process or a shared batch says it took. `began` by time.perf_counter()."""
    added = StageTiming(name, attributes, began, error=error)
    traced = _hook.get()
    if traced is not None:
        added.told = traced(added)
    added.seconds = seconds
    _finish(added)
    return added


def reason_of(error: BaseException) -> str:
    """What programs are told it was, where the error says so; never the text, which may quote what a caller sent."""
    reason = getattr(error, "reason", None)
    # UnicodeDecodeError and ssl.SSLError have a `reason` too, which is a text.
    return reason if isinstance(reason, str) and _REASON.fullmatch(reason) else type(error).__name__


def _finish(ended: StageTiming) -> None:
    call = current_call()
    if call is not None and len(call.stages) < MOST:
        call.stages.append(ended)
    told, ended.told = ended.told, None
    if told is not None:
        told(ended)
