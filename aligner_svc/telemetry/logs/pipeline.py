"""The server's log: structlog and the standard library's loggers in one pipeline, one line for each event, on stderr.

The thread that logs checks the level and the rate limit (see rate_limit) and collects the fields. The writer's thread does
what takes longer: redaction (see redaction), rendering as JSON or with colours, the write. Logging never waits for the reader.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Collection, MutableMapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TextIO, TypeAlias

import structlog

from aligner_svc.telemetry.logs.event import Event, event_of, hooks, now
from aligner_svc.telemetry.logs.rate_limit import LineRate, LogLimit
from aligner_svc.telemetry.logs.redaction import Concealed, Redactor
from aligner_svc.telemetry.logs.writer import LogWriter

LogFormat: TypeAlias = Literal["auto", "json", "console"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

ACCESS = "interceptors.access_log"
RATES = {ACCESS: LineRate(1000.0, 5000)}
"""One line for each call, limited by status code: more than this is a flood."""

REPORT_EVERY = 10.0
"""Seconds between two reports of suppressed lines."""

_CLOSE_TIMEOUT = 2.0
"""Seconds `close` waits for what is still to be written."""
_UNUSED = ("logThreads", "logProcesses", "logMultiprocessing")
"""Switches for fields that no line has and that take a third of its time: https://docs.python.org/3/howto/logging.html#optimization."""
_QUIET = (
    *("httpx", "httpcore", "asyncio", "grpc", "sqlalchemy", "aiosqlite", "alembic", "asyncpg", "redis"),
    *("opentelemetry", "urllib3", "filelock", "huggingface_hub", "transformers", "numba"),
)
"""Libraries that are verbose below WARNING, and log URLs and statements with values."""


class Logs:
    """The pipeline, installed from `open_logs` until `close`."""

    def __init__(
        self,
        stream: TextIO,
        *,
        json_lines: bool,
        level: int,
        redactor: Redactor,
        limit: LogLimit,
        report_every: float,
    ) -> None:
        self._limit = limit
        self._redactor = redactor
        self._render: Callable[[Any, str, Event], str | bytes] = (
            structlog.processors.JSONRenderer(serializer=_json)
            if json_lines
            else structlog.dev.ConsoleRenderer(
                colors=_is_terminal(stream),
                exception_formatter=structlog.dev.plain_traceback,
                event_key="event",
                timestamp_key="time",
            )
        )
        self._console = not json_lines
        self._writer: LogWriter[Event] = LogWriter(stream, self._line, idle=self._suppressed_lines, every=report_every)
        self._handler = _Handler(self)
        self._previous = _Configuration()
        self._level = level
        root = logging.getLogger()
        root.handlers, root.level = [self._handler], level
        logging.captureWarnings(True)
        for name in _UNUSED:
            setattr(logging, name, False)
        self.adopt()
        structlog.configure(
            processors=[structlog.stdlib.add_log_level, structlog.contextvars.merge_contextvars, _to_stdlib],
            wrapper_class=structlog.stdlib.BoundLogger,
            logger_factory=structlog.stdlib.LoggerFactory(),
            cache_logger_on_first_use=False,
        )
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks()

    @property
    def dropped(self) -> int:
        """Lines that were lost: the queue was full, or the stream broke."""
        return self._writer.dropped

    @property
    def suppressed(self) -> int:
        """Lines suppressed by the rate limit."""
        return self._limit.suppressed

    def adopt(self) -> None:
        """Send the lines of loggers that have handlers of their own here instead. Can be repeated after further imports."""
        for logger in list(logging.root.manager.loggerDict.values()):
            if isinstance(logger, logging.Logger) and logger.handlers:
                logger.handlers, logger.propagate = [], True
        for name in _QUIET:
            logging.getLogger(name).setLevel(max(logging.WARNING, self._level))

    def close(self) -> None:
        """Write what waits, for 2 seconds at most, and restore the previous configuration. Idempotent."""
        self._previous.restore(self._handler)
        self._writer.close(_CLOSE_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def take(self, record: logging.LogRecord) -> None:
        """Queue one line, on the thread that logs it. Never raises."""
        try:
            self._put(record)
        except Exception:  # the standard library would print the arguments to stderr, secrets and all
            line = _event("error", record.name, "a line could not be logged", line=record.lineno)
            self._writer.put(line, 512, important=True)

    def _put(self, record: logging.LogRecord) -> None:
        template = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        event = str(record.__dict__.get("limit_by") or template[:512])
        if not self._limit.passes(record.name, record.levelno, event):
            return
        line = event_of(record)
        size = len(line["event"]) + len(line.get("exception", "")) + 512
        self._writer.put(line, size, important=record.levelno >= logging.WARNING)

    def _suppressed_lines(self) -> Sequence[Event]:
        """A line for each event that the rate limit suppressed."""
        return [
            _event(logging.getLevelName(one.level).lower(), one.logger, "suppressed", of=one.event, count=one.count)
            for one in self._limit.report()
        ]

    def _line(self, event: Event) -> bytes:
        """The rendered line; runs on the writer's thread."""
        line = self._redacted(event, event.pop("_concealed", None))
        if self._console:
            line = {name: _on_one_line(value, keep=name in {"exception", "stack"}) for name, value in line.items()}
        rendered = self._render(None, "", line)
        return (rendered if isinstance(rendered, bytes) else rendered.encode("utf-8", "backslashreplace")) + b"\n"

    def _redacted(self, event: Event, transcript: Concealed | None) -> Event:
        redactor = self._redactor
        if redactor.harmless(event) and (transcript is None or not event.keys() & {"exception", "stack"}):
            return event if transcript is None else event | {"event": transcript.hide(event["event"])}
        line: Event = {}
        for name, value in event.items():
            if name in {"event", "exception", "stack"}:
                line[name] = (redactor.text if name == "event" else redactor.trace)(str(value), transcript=transcript)
            else:
                line[name] = redactor.field(name, value)
        return line


def open_logs(
    log_format: LogFormat = "auto",
    level: LogLevel = "info",
    *,
    stream: TextIO | None = None,
    key_prefixes: Collection[str] = ("alk",),
    limit: LogLimit | None = None,
    report_every: float = REPORT_EVERY,
) -> Logs:
    """Make every logger of the process write to `stream`, else to stderr; stdout is for the audit log.

    `auto` is console on a terminal and JSON elsewhere. `key_prefixes`: prefixes of the service's API keys.
    """
    out = stream or sys.stderr
    return Logs(
        out,
        json_lines=log_format == "json" or (log_format == "auto" and not _is_terminal(out)),
        level=logging.getLevelNamesMapping()[level.upper()],
        redactor=Redactor(key_prefixes),
        limit=limit or LogLimit(RATES),
        report_every=report_every,
    )


def in_force() -> Logs | None:
    """The pipeline that was opened last and is not closed."""
    return next((handler.logs for handler in logging.getLogger().handlers if isinstance(handler, _Handler)), None)


class _Handler(logging.Handler):
    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self.logs = logs

    def createLock(self) -> None:  # noqa: N802 - the rate limit and the writer have locks of their own
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        self.logs.take(record)


def _to_stdlib(_: Any, __: str, event: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    """The last of structlog's processors: turns lines of its loggers into records of the standard library."""
    keywords: dict[str, Any] = {name: event.pop(name) for name in ("exc_info", "stack_info", "stacklevel") if name in event}
    event.pop("level", None)
    return (str(event.pop("event", "")),), {**keywords, "extra": {"_line": dict(event)}}


def _event(level: str, logger: str, text: str, **fields: Any) -> Event:
    return {"time": now(), "level": level, "logger": logger, "event": text, **fields}


def _json(event: Event, **_: Any) -> str:
    """ASCII only: control characters, line separators and anything else that could forge a line are escaped. NaN becomes text."""
    try:
        return json.dumps(event, ensure_ascii=True, allow_nan=False)
    except ValueError:
        finite = {name: str(value) if isinstance(value, float) else value for name, value in event.items()}
        return json.dumps(finite, ensure_ascii=True, default=str)


def _on_one_line(value: Any, *, keep: bool) -> Any:
    """For a terminal: escapes control sequences and line breaks, with which a caller could forge a line."""
    if not isinstance(value, str) or value.isprintable():
        return value
    allowed = "\n\t" if keep else ""
    return "".join(char if char.isprintable() or char in allowed else char.encode("unicode_escape").decode() for char in value)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


class _Configuration:
    """The process's logging configuration, to be restored for tests and embedding programs."""

    def __init__(self) -> None:
        root = logging.getLogger()
        self._handlers, self._level = list(root.handlers), root.level
        self._hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
        self._structlog = structlog.get_config() if structlog.is_configured() else None
        self._quiet = {name: logging.getLogger(name).level for name in _QUIET}
        self._unused = {name: getattr(logging, name) for name in _UNUSED}

    def restore(self, handler: logging.Handler) -> None:
        root = logging.getLogger()
        if handler not in root.handlers:
            return
        root.handlers, root.level = self._handlers, self._level
        logging.captureWarnings(False)
        for name, value in self._unused.items():
            setattr(logging, name, value)
        for name, level in self._quiet.items():
            logging.getLogger(name).setLevel(level)
        sys.excepthook, threading.excepthook, sys.unraisablehook = self._hooks
        if self._structlog is None:
            structlog.reset_defaults()
        else:
            structlog.configure(**self._structlog)
