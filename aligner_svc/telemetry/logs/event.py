"""A log line before it is rendered: the fields of the logged record and of the call it was logged in."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TypeAlias

from aligner_svc.telemetry.logs.redaction import concealed
from interceptors.calls.call import current_call
from interceptors.tracing.call_trace import current_span

log = logging.getLogger("aligner_svc.telemetry.log_event")

Event: TypeAlias = dict[str, Any]
"""Fields by name, before redaction."""

_OWN = {"limit_by", "_line", "_logger", "_name", "_from_structlog", "_record"}
_NO_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"} | _OWN
_MAX_TRACE, _MAX_MESSAGE = 256 * 1024, 64 * 1024
"""Characters kept of a traceback and of a message: an exception may quote a whole upload."""


def event_of(record: logging.LogRecord) -> Event:
    """The fields of the record and its call. They hold no reference to a frame or an argument."""
    given = record.__dict__
    event: Event = {
        "time": rfc3339(record.created),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": _message(record),
    }
    event |= {name: value for name, value in given.items() if name not in _NO_FIELDS}
    event |= given.get("_line", {})
    call = current_call()
    if call is not None:
        event.setdefault("request_id", call.request_id)
    event |= _trace_ids()
    if record.exc_info and record.exc_info[1] is not None:
        # Without local variables: they hold audio and text.
        event["exception"] = _bounded("".join(traceback.format_exception(*record.exc_info)).rstrip(), _MAX_TRACE)
    elif record.exc_text:
        event["exception"] = _bounded(record.exc_text, _MAX_TRACE)
    if record.stack_info:
        event["stack"] = _bounded(record.stack_info, _MAX_TRACE)
    transcript = concealed()
    if transcript is not None:
        event["_concealed"] = transcript
    return event


def _message(record: logging.LogRecord) -> str:
    try:
        return _bounded(record.getMessage(), _MAX_MESSAGE)
    except Exception:  # the arguments do not fit the template; log the template alone
        return f"{str(record.msg)[:_MAX_MESSAGE]} [its arguments do not fit]"


def _bounded(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]}\n[cut]\n{text[-limit // 2 :]}"


def _trace_ids() -> dict[str, str]:
    span = current_span()
    return {} if span is None else {"trace_id": span.trace, "span_id": span.span}


def now() -> str:
    """The current time as log lines have it."""
    return rfc3339(datetime.now(UTC).timestamp())


def rfc3339(at: float) -> str:
    """UTC, milliseconds; `at` in Unix seconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def hooks() -> tuple[Callable[..., None], Callable[..., None], Callable[..., None]]:
    """For sys.excepthook, threading.excepthook and sys.unraisablehook: they log uncaught exceptions."""
    return _uncaught, _uncaught_in_thread, _unraisable


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    log.critical("uncaught", exc_info=(kind, error, trace))


def _uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        name = arguments.thread.name if arguments.thread else "unknown"
        log.critical("uncaught in thread %s", name, exc_info=(arguments.exc_type, arguments.exc_value, arguments.exc_traceback))


def _unraisable(arguments: sys.UnraisableHookArgs) -> None:
    if arguments.exc_value is not None:
        what = arguments.err_msg or "exception ignored"
        log.error(
            "%s in %s",
            what,
            type(arguments.object).__name__,
            exc_info=(arguments.exc_type, arguments.exc_value, arguments.exc_traceback),
        )
