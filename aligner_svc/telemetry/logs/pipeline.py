"""The server's log: structlog and the standard library's loggers in one pipeline, one line each, on stderr.

A line passes on the thread that logs it: the level, the limit of its event (see rate_limit), the call it belongs to, its
text. The rest, which takes longer, happens on the writer's thread: secrets taken out (see redaction), JSON or colours,
the write. Nobody who logs waits for who reads.
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
"""An access line is one call's, of a code: more than this is a flood, and what is left out is counted by code."""

REPORT_EVERY = 10.0
"""Seconds between two reports of what was left out."""

_CLOSE_TIMEOUT = 2.0
"""Seconds `close` waits for what is still to be written."""
_NOT_WANTED = ("logThreads", "logProcesses", "logMultiprocessing")
"""Of the standard library's switches: https://docs.python.org/3/howto/logging.html#optimization."""
_QUIET = (
    *("httpx", "httpcore", "asyncio", "grpc", "sqlalchemy", "aiosqlite", "alembic", "asyncpg", "redis"),
    *("opentelemetry", "urllib3", "filelock", "huggingface_hub", "transformers", "numba"),
)
"""Libraries that tell more than anybody asked for below WARNING, some of it URLs and statements with values."""


class Logs:
    """The pipeline, in force from `open_logs` until `close`."""

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
        self._writer: LogWriter[Event] = LogWriter(stream, self._line, idle=self._left_out, every=report_every)
        self._handler = _Handler(self)
        self._before = _Before.take()
        self._level = level
        root = logging.getLogger()
        root.handlers, root.level = [self._handler], level
        logging.captureWarnings(True)
        # What no line has: threads, processes, tasks. Finding them out is a third of the time of a line.
        for name in _NOT_WANTED:
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
        """Lines that were lost: there was no room while nobody read, or the stream broke."""
        return self._writer.dropped

    @property
    def suppressed(self) -> int:
        """Lines that were left out because their event came too often."""
        return self._limit.suppressed

    def adopt(self) -> None:
        """Loggers that brought handlers of their own when they were imported send their lines here instead. Can be repeated."""
        for logger in list(logging.root.manager.loggerDict.values()):
            if isinstance(logger, logging.Logger) and logger.handlers:
                logger.handlers, logger.propagate = [], True
        for name in _QUIET:
            quiet = logging.getLogger(name)
            quiet.setLevel(max(logging.WARNING, self._level))

    def close(self) -> None:
        """Write what waits, for 2 seconds at most, and put back what was there before. Idempotent."""
        self._before.restore(self._handler)
        self._writer.close(_CLOSE_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def take(self, record: logging.LogRecord) -> None:
        """One line, on the thread that logs it. Never raises."""
        try:
            self._put(record)
        except Exception:  # the standard library would print the arguments to stderr, secrets and all
            line = {
                "time": now(),
                "level": "error",
                "logger": record.name,
                "event": "a line could not be logged",
                "line": record.lineno,
            }
            self._writer.put(line, 512, important=True)

    def _put(self, record: logging.LogRecord) -> None:
        template = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        event = str(record.__dict__.get("limit_by") or template[:512])
        if not self._limit.passes(record.name, record.levelno, event):
            return
        line = event_of(record)
        size = len(line["event"]) + len(line.get("exception", "")) + 512
        self._writer.put(line, size, important=record.levelno >= logging.WARNING)

    def _left_out(self) -> Sequence[Event]:
        """For what the limit left out, a line an event."""
        lines: list[Event] = []
        for one in self._limit.report():
            level = logging.getLevelName(one.level).lower()
            event = {
                "time": now(),
                "level": level,
                "logger": one.logger,
                "event": "suppressed",
                "of": one.event,
                "count": one.count,
            }
            lines.append(event)
        return lines

    def _line(self, event: Event) -> bytes:
        """On the writer's thread: as it is written."""
        private: Concealed | None = event.pop("_concealed", None)
        line = self._scrubbed(event, private)
        if self._console:
            line = {name: _on_one_line(value, keep=name in {"exception", "stack"}) for name, value in line.items()}
        rendered = self._render(None, "", line)
        return (rendered if isinstance(rendered, bytes) else rendered.encode("utf-8", "backslashreplace")) + b"\n"

    def _scrubbed(self, event: Event, private: Concealed | None) -> Event:
        scrub = self._redactor
        if scrub.harmless(event) and (private is None or not event.keys() & {"exception", "stack"}):
            return event if private is None else event | {"event": private.hide(event["event"])}
        line: Event = {}
        for name, value in event.items():
            if name in {"event", "exception", "stack"}:
                line[name] = (scrub.text if name == "event" else scrub.trace)(str(value), private=private)
            else:
                line[name] = scrub.field(name, value)
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
    """From now on every logger of the process writes to `stream`, else stderr; stdout is the audit log's.

    `auto` is console on a terminal and JSON elsewhere. `key_prefixes`: what the service's API keys begin with.
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
    """Where the process' loggers write now: the one that was opened last and is not closed."""
    return next((handler.logs for handler in logging.getLogger().handlers if isinstance(handler, _Handler)), None)


class _Handler(logging.Handler):
    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self.logs = logs

    def createLock(self) -> None:  # noqa: N802 - the limit and the writer have their own
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        self.logs.take(record)


def _to_stdlib(_: Any, __: str, event: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    """The last of structlog's processors: its loggers' lines become the standard library's records."""
    keywords: dict[str, Any] = {name: event.pop(name) for name in ("exc_info", "stack_info", "stacklevel") if name in event}
    event.pop("level", None)
    return (str(event.pop("event", "")),), {**keywords, "extra": {"_line": dict(event)}}


def _json(event: Event, **_: Any) -> str:
    """ASCII alone: control characters, line separators and what else could forge a line are escaped. No NaN, which is no JSON."""
    try:
        return json.dumps(event, ensure_ascii=True, allow_nan=False)
    except ValueError:
        finite = {name: str(value) if isinstance(value, float) else value for name, value in event.items()}
        return json.dumps(finite, ensure_ascii=True, default=str)


def _on_one_line(value: Any, *, keep: bool) -> Any:
    """For a terminal: no escape sequences that could drive it, no line that somebody else begins."""
    if not isinstance(value, str) or value.isprintable():
        return value
    allowed = "\n\t" if keep else ""
    return "".join(char if char.isprintable() or char in allowed else char.encode("unicode_escape").decode() for char in value)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


class _Before:
    """What was set before, for tests and for whoever embeds the server."""

    def __init__(self) -> None:
        root = logging.getLogger()
        self._handlers, self._level = list(root.handlers), root.level
        self._hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
        self._structlog = structlog.get_config() if structlog.is_configured() else None
        self._quiet = {name: logging.getLogger(name).level for name in _QUIET}
        self._wanted = {name: getattr(logging, name) for name in _NOT_WANTED}

    @classmethod
    def take(cls) -> Self:
        return cls()

    def restore(self, handler: logging.Handler) -> None:
        root = logging.getLogger()
        if handler not in root.handlers:
            return
        root.handlers, root.level = self._handlers, self._level
        logging.captureWarnings(False)
        for name, wanted in self._wanted.items():
            setattr(logging, name, wanted)
        for name, level in self._quiet.items():
            logging.getLogger(name).setLevel(level)
        sys.excepthook, threading.excepthook, sys.unraisablehook = self._hooks
        if self._structlog is None:
            structlog.reset_defaults()
        else:
            structlog.configure(**self._structlog)
