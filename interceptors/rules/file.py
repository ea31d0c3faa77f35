"""Rules in a file that is read again when it changes: who may do what, who may use how much."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

from interceptors.calls.security_event import Event, Record, SecurityEvent
from interceptors.rules.file_watch import FileWatch

log = logging.getLogger("interceptors.rules_file")


class Rules(Protocol):
    """One version of a file's content."""

    fingerprint: str
    """How `sha256sum` of the file begins."""

    def changes_since(self, before: Self) -> str:
        """For a log line."""


_Rules = TypeVar("_Rules", bound=Rules)


@dataclass(frozen=True, slots=True)
class RulesFormat(Generic[_Rules]):
    """What is in the file. `parse(text, source)` raises `fault`, whose message names file and line."""

    name: str
    """For people: "the policy's file"."""
    parse: Callable[[str, str], _Rules]
    fault: type[Exception]
    longest: int
    """Bytes."""
    too_long: Callable[[str], Exception]


class RulesFile(Generic[_Rules]):
    """`current` is the last good version: a mistake while the server runs neither opens nor closes anything.

    Calls in progress keep the answer they got; a new version is asked from the next call on.
    """

    def __init__(self, path: Path, kind: RulesFormat[_Rules], record: Record | None, every: float) -> None:
        """`every`: seconds between looks at the file; without a `record`, what happens to it is logged.

        Raises the kind's fault: a server does not start with bad rules.
        """
        self._path = path
        self._kind = kind
        self._record = record
        self._failed = False
        # Before the first reading, so that a change in between counts.
        self._watch = FileWatch((path,), self.reload, every)
        self._current = self._read()

    @property
    def current(self) -> _Rules:
        """The rules in force."""
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
        except self._kind.fault as error:
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

    def _read(self) -> _Rules:
        kind, path = self._kind, self._path
        try:
            with path.open("rb") as file:
                raw = file.read(kind.longest + 1)
        except OSError as error:
            reason = (error.strerror or "input/output error").lower()
            raise kind.fault(f"{path}: cannot be read: {reason}; {kind.name} has to be readable") from None
        if len(raw) > kind.longest:
            raise kind.too_long(str(path))
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise kind.fault(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None
        return kind.parse(text, str(path))
