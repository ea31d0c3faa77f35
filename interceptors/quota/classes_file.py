"""The classes in a file, read again when the file changes."""

from __future__ import annotations

import logging
from pathlib import Path

from interceptors.events import Event, Record, SecurityEvent
from interceptors.file_watch import FileWatch
from interceptors.quota.classes import BUILT_IN, QuotaClasses
from interceptors.quota.classes_text import LONGEST, QuotaError, parse, too_long

log = logging.getLogger(__name__)


def built_in() -> QuotaClasses:
    """What holds where no file is named."""
    return parse(BUILT_IN, "the built-in classes")


class QuotaClassesFile:
    """`current` is the last good version. A new one is asked from the next call on; what was used stays used."""

    def __init__(self, path: Path, record: Record | None, every: float) -> None:
        """`every`: seconds between looks at the file; without a `record`, what happens to it is logged.

        Raises QuotaError: a server does not start with bad classes.
        """
        self._path = path
        self._record = record
        self._failed = False
        # Before the first reading, so that a change in between counts.
        self._watch = FileWatch((path,), self.reload, every)
        self._current = self._read()

    @property
    def current(self) -> QuotaClasses:
        """The classes in force."""
        return self._current

    async def start(self) -> None:
        """Follow the file from now on."""
        await self._watch.start()

    async def close(self) -> None:
        """Idempotent."""
        await self._watch.close()

    def reload(self) -> None:
        """Take the file in as it is now, or keep what is in force and record why."""
        try:
            new = self._read()
        except QuotaError as error:
            self._failed = True
            self._tell(Event.POLICY_RELOAD_FAILED, str(error))
            return
        old = self._current
        # Touched and not changed is not worth a line, but that a bad file has been put right is.
        if new.fingerprint != old.fingerprint or self._failed:
            changes = new.changes_since(old)
            self._tell(Event.POLICY_CHANGED, f"{self._path}: sha256 {old.fingerprint} -> {new.fingerprint}; {changes}")
        self._failed = False
        self._current = new

    def _tell(self, event: Event, detail: str) -> None:
        if self._record is not None:
            self._record(SecurityEvent(event, detail=detail))
        else:
            log.warning("%s: %s", event, detail)

    def _read(self) -> QuotaClasses:
        try:
            with self._path.open("rb") as file:
                raw = file.read(LONGEST + 1)
        except OSError as error:
            reason = (error.strerror or "input/output error").lower()
            raise QuotaError(f"{self._path}: cannot be read: {reason}; the file of classes has to be readable") from None
        if len(raw) > LONGEST:
            raise too_long(str(self._path))
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise QuotaError(f"{self._path}, line {line}: not UTF-8; save the file as UTF-8") from None
        return parse(text, str(self._path))
