"""The audit log: security events, one JSON object a line, appended to a file or to a stream."""

from __future__ import annotations

import json
import logging
import os
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from aligner_svc.config.security import AuditSettings
from aligner_svc.errors import StartError
from interceptors.calls.security_event import SecurityEvent

log = logging.getLogger("aligner_svc.telemetry.audit")

DROPPED = "audit_dropped"
"""The event that stands for `count` others, for which there was no room while nothing could be written."""

_WAITING = 10_000
"""Events that wait for a slow disk: a few MB."""
_BATCH = 256
_FIELD = 512
"""Characters of a field: callers choose some of them."""
_RETRY = 1.0
"""Seconds between attempts to write what could not be written."""
_COMPLAIN = 60.0
"""Seconds between complaints in the server's log: a full disk is not fought with more lines."""
_WAIT_TIMEOUT = 5.0
"""Seconds `close` waits for what is still to be written."""
_MODE = 0o640
_FIELDS = ("event", "check", "principal", "request_id", "peer", "method", "user_agent", "detail")


class AuditError(StartError):
    """The audit log cannot be written; the message says why and what to do."""


def open_audit(settings: AuditSettings, *, stream: TextIO | None = None) -> AuditLog:
    """The log the settings name, else `stream`, else stdout.

    Raises AuditError: a server that cannot leave a record does not start. One that runs goes on (see AuditLog).
    """
    try:
        return AuditLog(settings.file, stream=stream)
    except OSError as error:
        reason = (error.strerror or "input/output error").lower()
        raise AuditError(
            f"the audit log {settings.file} cannot be opened: {reason}; "
            "its directory has to exist and this process has to be allowed to write there (setting audit.file)"
        ) from None


class AuditLog:
    """Written by a thread of its own: `record` neither blocks nor raises, whatever the disk does.

    What cannot be written waits and is tried again, 10,000 events at most. Beyond that events are lost and their number is
    logged (DROPPED): calls are still decided, refusing everybody for a full disk would make filling it an attack.
    Lines reach the operating system at once and are not synced: they survive the process, not a power failure.
    """

    def __init__(self, file: Path | None, *, stream: TextIO | None = None, now: Callable[[], float] = time.time) -> None:
        """Without `file` to `stream`, without that to stdout. `now`: Unix seconds. Raises OSError for the file."""
        self._now = now
        self._out = _File(file) if file is not None else _Stream(stream or sys.stdout)
        self._name = str(file or "stream")
        self._waiting: deque[tuple[float, SecurityEvent]] = deque()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._dropped = 0
        self._unreported = 0
        self._complained: dict[str, float] = {}
        # A daemon: a stream that nobody reads must not keep the process from leaving.
        self._thread = threading.Thread(target=self._write, name="audit", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Events that were lost, since the start."""
        return self._dropped

    def record(self, event: SecurityEvent) -> None:
        """From any thread. The line follows; after `close` there is none."""
        with self._changed:
            closed = self._closed.is_set()
            if len(self._waiting) < _WAITING and not closed:
                self._waiting.append((self._now(), event))
                self._changed.notify()
                return
            self._dropped += 1
            self._unreported += 1
        self._complain("events are lost: it is closed" if closed else "events are lost: they come faster than they are written")

    def close(self) -> None:
        """Writes what waits, for 5 seconds at most. Idempotent."""
        with self._changed:
            self._closed.set()
            self._changed.notify()
        self._thread.join(_WAIT_TIMEOUT)

    def _write(self) -> None:
        lines: list[bytes] = []
        while True:
            if not lines:
                lines = self._next()
            if not lines:
                self._out.close()
                return
            last_try = self._closed.is_set()
            try:
                self._out.write(lines)
            except OSError as error:
                self._complain(f"not written: {(error.strerror or 'input/output error').lower()}; trying again")
                if last_try:
                    self._lose(len(lines) + len(self._waiting))
                    self._out.close()
                    return
                self._closed.wait(_RETRY)
            except Exception:  # a stream closed under us, or a bug: the thread goes on with what comes behind this batch
                log.exception("audit log %s", self._name)
                self._lose(len(lines))
                lines = []

    def _next(self) -> list[bytes]:
        """The next lines; waits for them; none when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed.is_set())
            count = min(len(self._waiting), self._out.batch)
            taken = [self._waiting.popleft() for _ in range(count)]
            # Told once there is room again, not for every event that finds none.
            unreported = self._unreported if len(self._waiting) <= _WAITING // 2 else 0
            self._unreported -= unreported
        lines = [_line(at, event) for at, event in taken]
        if unreported:
            lines.append(_dump({"time": _rfc3339(self._now()), "event": DROPPED, "count": unreported}))
        return lines

    def _lose(self, count: int) -> None:
        with self._changed:
            self._dropped += count
        log.error("audit log %s: %d lines are lost", self._name, count)

    def _complain(self, what: str) -> None:
        now = time.monotonic()
        if now - self._complained.get(what, -_COMPLAIN) >= _COMPLAIN:
            self._complained[what] = now
            log.error("audit log %s: %s", self._name, what)


class _File:
    """Appends whole lines, several processes at a time; follows the name when the file is rotated away.

    `write` removes from its list what is written, and raises OSError with the rest in it.
    """

    batch = _BATCH

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        self._torn = False
        self._open()

    def write(self, lines: list[bytes]) -> None:
        fd = self._reopened()
        while lines:
            # One write for all of them: with O_APPEND nobody else's lines get in between.
            data = (b"\n" if self._torn else b"") + b"".join(lines)
            before = len(data) - sum(map(len, lines))
            written = os.write(fd, data)
            self._torn = self._torn and written == 0
            left = written - before
            while lines and left >= len(lines[0]):
                left -= len(lines.pop(0))
            # A line that was cut is written again whole, on a line of its own: meanwhile others may have appended.
            self._torn = self._torn or left > 0

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _reopened(self) -> int:
        """The file that has the name now: rotation renames it away, or somebody removed it."""
        if self._fd is not None:
            mine = os.fstat(self._fd)
            try:
                named: os.stat_result | None = self._path.stat()
            except FileNotFoundError:
                named = None
            if named is not None and (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino):
                return self._fd
            self.close()
        return self._open()

    def _open(self) -> int:
        # Without waiting: for a named pipe that nobody reads, open would never return.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self._fd = fd = os.open(self._path, flags, _MODE)
        os.set_blocking(fd, True)
        self._torn = stat.S_ISREG(os.fstat(fd).st_mode) and _ends_within_a_line(self._path)
        return fd


class _Stream:
    """By its descriptor where it has one: a thread stuck in a TextIO keeps its lock, which ends the interpreter with an abort."""

    batch = 1
    """A pipe takes up to 4 KiB in one piece; more could be torn by what others print."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        try:
            self._fd: int | None = stream.fileno()
        except (OSError, ValueError, AttributeError):
            self._fd = None

    def write(self, lines: list[bytes]) -> None:
        if self._fd is None:
            self._stream.write(b"".join(lines).decode("ascii"))
            self._stream.flush()
            lines.clear()
        while lines and self._fd is not None:
            lines[0] = lines[0][os.write(self._fd, lines[0]) :]
            if not lines[0]:
                del lines[0]

    def close(self) -> None:
        """The stream is somebody else's."""


def _ends_within_a_line(path: Path) -> bool:
    """After a crash; what is appended would be lost with the fragment. Not told of a file that may be written and not read."""
    try:
        with path.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return False


def _line(at: float, event: SecurityEvent) -> bytes:
    found = {name: getattr(event, name) for name in _FIELDS}
    return _dump({"time": _rfc3339(at), **{name: _capped(str(value)) for name, value in found.items() if value}})


def _dump(value: dict[str, str | int]) -> bytes:
    """ASCII alone: control characters, line separators and what else could forge a line are escaped."""
    return json.dumps(value, ensure_ascii=True, separators=(", ", ": ")).encode("ascii") + b"\n"


def _capped(text: str) -> str:
    return text if len(text) <= _FIELD else f"{text[: _FIELD - 1]}\N{HORIZONTAL ELLIPSIS}"


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
