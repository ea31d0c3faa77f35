"""The audit log: security events, one JSON object a line, appended to a file or to a stream."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from aligner_svc.config.security import AuditSettings
from aligner_svc.errors import StartError
from aligner_svc.telemetry.logs.event import rfc3339
from aligner_svc.telemetry.writer_thread import OutputStream, WriterThread
from interceptors.calls.security_event import SecurityEvent

log = logging.getLogger("aligner_svc.telemetry.audit")

DROPPED = "audit_dropped"
"""The event that stands for `count` others, dropped because nothing could be written and the queue was full."""

_MAX_WAITING = 10_000
"""Events that wait for a slow disk: a few MB."""
_BATCH = 256
_MAX_FIELD = 512
"""Characters of a field: callers choose some of them."""
_RETRY = 1.0
"""Seconds between attempts to write what could not be written."""
_COMPLAIN_EVERY = 60.0
"""Seconds between two messages about the same problem in the server's log: more lines do not help a full disk."""
_CLOSE_TIMEOUT = 5.0
"""Seconds `close` waits for what is still to be written."""
_MODE = 0o640
_FIELDS = ("event", "check", "principal", "request_id", "peer", "method", "user_agent", "detail")


class AuditError(StartError):
    """The audit log cannot be written; the message says why and what to do."""


def open_audit(settings: AuditSettings, *, stream: TextIO | None = None) -> AuditLog:
    """The log the settings name, else `stream`, else stdout.

    Raises AuditError: a server that cannot keep an audit log does not start. A running one continues (see AuditLog).
    """
    try:
        return AuditLog(settings.file, stream=stream)
    except OSError as error:
        raise AuditError(
            f"the audit log {settings.file} cannot be opened: {_reason(error)}; "
            "its directory has to exist and this process has to be allowed to write there (setting audit.file)"
        ) from None


class AuditLog:
    """Written by a thread of its own: `record` neither blocks nor raises, whatever the disk does.

    What cannot be written waits and is tried again, 10,000 events at most. Further events are lost and their number is
    logged (DROPPED); calls continue, because refusing all of them for a full disk would make filling it an attack.
    Lines reach the operating system at once and are not synced: they survive the process, not a power failure.
    """

    def __init__(self, file: Path | None, *, stream: TextIO | None = None, now: Callable[[], float] = time.time) -> None:
        """Without `file` to `stream`, without that to stdout. `now`: Unix seconds. Raises OSError for the file."""
        self._now = now
        self._out = _File(file) if file is not None else _Stream(stream or sys.stdout)
        self._name = str(file or "stream")
        self._complained: dict[str, float] = {}
        self._reported = 0
        self._writer: WriterThread[tuple[float, SecurityEvent]] = WriterThread(
            "audit", self._write, batch=self._out.batch, max_items=_MAX_WAITING
        )

    @property
    def dropped(self) -> int:
        """Events lost since the start."""
        return self._writer.dropped

    def record(self, event: SecurityEvent) -> None:
        """Queue the event, from any thread. Events recorded after `close` are lost."""
        if not self._writer.put((self._now(), event)):
            why = "it is closed" if self._writer.closing else "they come faster than they are written"
            self._complain(f"events are lost: {why}")

    def close(self) -> bool:
        """Write what waits, for 5 seconds at most. Returns whether the thread has ended. Idempotent."""
        ended = self._writer.close(_CLOSE_TIMEOUT)
        if ended:
            self._out.close()
        return ended

    def _write(self, events: Sequence[tuple[float, SecurityEvent]]) -> None:
        lines = [_line(at, event) for at, event in events]
        refused = self._writer.refused
        # Reported once there is room again, not for every event that finds none.
        if refused > self._reported and self._writer.waiting <= _MAX_WAITING // 2:
            lines.append(_dump({"time": rfc3339(self._now()), "event": DROPPED, "count": refused - self._reported}))
            self._reported = refused
        while lines:
            last_attempt = self._writer.closing
            try:
                self._out.write(lines)
            except OSError as error:
                self._complain(f"not written: {_reason(error)}; trying again")
                if last_attempt:
                    self._lose(len(lines) + self._writer.clear())
                    return
                self._writer.pause(_RETRY)
            except Exception:  # the stream was closed, or a bug: continue with the next batch
                log.exception("audit log %s", self._name)
                self._lose(len(lines))
                return

    def _lose(self, count: int) -> None:
        self._writer.lost += count
        log.error("audit log %s: %d lines are lost", self._name, count)

    def _complain(self, what: str) -> None:
        now = time.monotonic()
        if now - self._complained.get(what, -_COMPLAIN_EVERY) >= _COMPLAIN_EVERY:
            self._complained[what] = now
            log.error("audit log %s: %s", self._name, what)


class _File:
    """Appends whole lines, several processes at a time; reopens the file by name after a rotation.

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
            # One write for all of them: with O_APPEND no other process's lines get in between.
            data = (b"\n" if self._torn else b"") + b"".join(lines)
            before = len(data) - sum(map(len, lines))
            written = os.write(fd, data)
            self._torn = self._torn and written == 0
            left = written - before
            while lines and left >= len(lines[0]):
                left -= len(lines.pop(0))
            # A line that was cut, as the disk is full, is taken back and written again whole later; at once, on a line of its
            # own, if another process has appended to it meanwhile.
            if left > 0:
                if _cut_off(fd, left):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._torn = True

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _reopened(self) -> int:
        """The file that has the name now: a rotation may have renamed or removed the one that is open."""
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
        # Non-blocking: opening a named pipe without a reader would never return.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self._fd = fd = os.open(self._path, flags, _MODE)
        os.set_blocking(fd, True)
        self._torn = stat.S_ISREG(os.fstat(fd).st_mode) and _ends_within_a_line(self._path)
        return fd


class _Stream:
    """As _File, for a stream that is not closed here."""

    batch = 1
    """A pipe takes up to 4 KiB in one piece; more could be torn by what others print."""

    def __init__(self, stream: TextIO) -> None:
        self._out = OutputStream(stream)

    def write(self, lines: list[bytes]) -> None:
        while lines:
            lines[0] = lines[0][self._out.write(lines[0]) :]
            if not lines[0]:
                del lines[0]

    def close(self) -> None: ...


def _cut_off(fd: int, size: int) -> bool:
    """Take back the last `size` bytes that were written to a file. Returns whether they were still its last."""
    try:
        end = os.lseek(fd, 0, os.SEEK_CUR)  # behind what was appended last through this descriptor
        if os.fstat(fd).st_size != end:
            return False
        os.ftruncate(fd, end - size)
    except OSError:  # a pipe
        return False
    return True


def _ends_within_a_line(path: Path) -> bool:
    """Whether a crash left a fragment, to which the next line would be lost. False for a file that may not be read."""
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
    return _dump({"time": rfc3339(at), **{name: _capped(str(value)) for name, value in found.items() if value}})


def _dump(value: dict[str, str | int]) -> bytes:
    """ASCII only: control characters, line separators and anything else that could forge a line are escaped."""
    return json.dumps(value, ensure_ascii=True).encode("ascii") + b"\n"


def _capped(text: str) -> str:
    return text if len(text) <= _MAX_FIELD else f"{text[: _MAX_FIELD - 1]}\N{HORIZONTAL ELLIPSIS}"


def _reason(error: OSError) -> str:
    return (error.strerror or "input/output error").lower()
