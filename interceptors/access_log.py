"""One log line for each call: principal, method, outcome, and how long each stage took."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc

from interceptors.calls.call import Call, Context, current_call
from interceptors.calls.outcome import final_code, reported_reason
from interceptors.handlers.base import CallInterceptor
from interceptors.tracing.call_trace import current_span

log = logging.getLogger(__name__)

_Code = grpc.StatusCode

LEVELS = {
    **dict.fromkeys(_Code, logging.WARNING),
    **dict.fromkeys(
        (_Code.OK, _Code.NOT_FOUND, _Code.CANCELLED, _Code.ALREADY_EXISTS, _Code.INVALID_ARGUMENT, _Code.UNAUTHENTICATED),
        logging.INFO,
    ),
    **dict.fromkeys((_Code.UNKNOWN, _Code.UNIMPLEMENTED, _Code.INTERNAL, _Code.DATA_LOSS), logging.ERROR),
}
"""As in go-grpc-middleware (logging.DefaultServerCodeToLevel)."""


class AccessLog(CallInterceptor):
    """Placed outside every guard, so that refused calls are logged too, and inside the recovery and the request id.

    The message is always "call"; the fields are attributes of the log record (`extra`). Of a request's content they have
    only the size.
    """

    def __init__(self, *, quiet: Collection[str] = (), now: Callable[[], float] = time.perf_counter) -> None:
        """`quiet`: methods logged at DEBUG, except for errors."""
        self._quiet = frozenset(quiet)
        self._now = now

    @contextmanager
    def around(self, method: str, context: Context) -> Iterator[None]:
        # Read now: an abandoned stream is closed by the event loop, outside the context of the call.
        call, span = current_call() or Call(method, context.peer()), current_span()
        began, left = self._now(), context.time_remaining()
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            seconds = self._now() - began
            try:
                code = final_code(context, error, left)
                level = LEVELS[code]
                if method in self._quiet and level < logging.ERROR:
                    level = logging.DEBUG
                if log.isEnabledFor(level):
                    fields = _fields(call, code, seconds)
                    fields["reason"] = reported_reason(context, error, code)
                    fields["deadline_ms"] = None if left is None else _ms(left)
                    fields["trace_id"] = span.trace if span is not None else ""
                    _write_soon(level, {name: value for name, value in fields.items() if value not in (None, "")})
            except Exception:  # a successful call must not fail because of its log line
                log.exception("could not log a call")


def _write_soon(level: int, fields: dict[str, Any]) -> None:
    """Write the line in the event loop's next turn, in the call's context, so that the answer does not wait for it."""
    write = partial(log.log, level, "call", extra=fields)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # an abandoned stream that is closed after the loop
        write()
    else:
        loop.call_soon(write)


def _fields(call: Call, code: grpc.StatusCode, seconds: float) -> dict[str, Any]:
    stages: dict[str, float] = {}
    audio = None
    for stage in call.stages:
        stages[stage.name] = stages.get(stage.name, 0.0) + stage.seconds
        reported = stage.attributes.get("audio_seconds")
        if isinstance(reported, (int, float)):
            audio = max(audio or 0.0, float(reported))
    return {
        "method": call.method,
        "code": code.name,
        "duration_ms": _ms(seconds),
        "stages_ms": {name: _ms(spent) for name, spent in stages.items()} or None,
        "request_bytes": getattr(call, "request_bytes", None),
        "audio_seconds": audio,
        "principal": call.principal.name if call.principal else "",
        "peer": call.peer,
        "protocol": call.protocol,
        "user_agent": call.user_agent,
        "request_id": call.request_id,
        # Limits the rate per code, so that a flood of refusals does not suppress the lines of served calls.
        "limit_by": code.name,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
