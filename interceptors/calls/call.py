"""What is known of the call being served: filled in by the guards, read by servicer, logs, metrics and traces."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from grpc import aio

from interceptors.calls.hooks import Admission, Meter, UploadScan
from interceptors.calls.principal import Principal

Context: TypeAlias = "aio.ServicerContext[Any, Any]"
Attribute: TypeAlias = str | bool | int | float
"""What a stage may be annotated with. It leaves the process: never a transcript, a token, audio, or an exception's text."""


@dataclass(eq=False, slots=True)
class StageTiming:
    """One stage of the work for a call, such as its decoding."""

    name: str
    """One of a few fixed words: it becomes a label."""
    attributes: dict[str, Attribute] = field(default_factory=dict)
    """May be added to until the stage ends."""
    began: float = 0.0
    """By time.perf_counter()."""
    seconds: float = 0.0
    """0 until it has ended."""
    error: str = ""
    """Why it failed: the reason sent to the client, else the name of the exception's class. "" if it did not."""


@dataclass(slots=True)
class Call:
    """One call. `principal` is None before authentication, and where none is required."""

    method: str
    """"/package.Service/Method"."""
    peer: str
    """Address as gRPC writes it, e.g. "ipv4:127.0.0.1:49534"."""
    request_id: str = ""
    user_agent: str = ""
    protocol: str = "grpc"
    """By which it came: "grpc" or "http"."""
    principal: Principal | None = None
    request_bytes: int = 0
    """Of the messages received so far."""
    meter: Meter | None = None
    """None: not charged."""
    scan: UploadScan | None = None
    """None: not scanned."""
    admission: Admission | None = None
    """None: not limited."""
    stages: list[StageTiming] = field(default_factory=list)
    """Those that have ended, in that order."""


_current: ContextVar[Call | None] = ContextVar("call", default=None)


def current_call() -> Call | None:
    """The call this task serves; None outside of one."""
    return _current.get()


def enter_call(call: Call) -> None:
    """For the rest of this call. gRPC gives every call its own task and context, so there is nothing to undo."""
    _current.set(call)
