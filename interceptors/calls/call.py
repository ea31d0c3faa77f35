"""What is known of the call that is being served: one value, filled on the way in, read by servicer and logs."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from grpc import aio

from interceptors.calls.hooks import Meter, Scanning
from interceptors.calls.principal import Principal

if TYPE_CHECKING:
    from interceptors.calls.stages import StageTiming

Context: TypeAlias = "aio.ServicerContext[Any, Any]"


@dataclass(slots=True)
class Call:
    """One call. `principal` is whoever was authenticated, None before and where nobody has to be."""

    method: str
    """"/package.Service/Method"."""
    peer: str
    """Address as gRPC writes it, e.g. "ipv4:127.0.0.1:49534"."""
    request_id: str = ""
    user_agent: str = ""
    principal: Principal | None = None
    request_bytes: int = 0
    """Of the messages that have come in."""
    meter: Meter | None = None
    """What the call is charged by; None where it is not."""
    scan: Scanning | None = None
    """What its upload is scanned by; None where nothing is."""
    stages: list[StageTiming] = field(default_factory=list)
    """What was done for the call so far, in the order it ended."""


_current: ContextVar[Call | None] = ContextVar("call", default=None)


def current_call() -> Call | None:
    """The call this task serves; None outside of one."""
    return _current.get()


def enter_call(call: Call) -> None:
    """For the rest of this call. gRPC gives every call a task, and so a context, of its own: there is nothing to undo."""
    _current.set(call)
