"""Rules in a file that is read again when it changes: the policy, the quota classes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

from interceptors.calls.security_event import Event, Record, SecurityEvent
from interceptors.rules.file_watch import FileWatch
from interceptors.rules.toml_text import RulesError, read_text


class Rules(Protocol):
    """One version of a file's content."""

    def changes_since(self, before: Self) -> str:
        """For a log line."""


_Rules = TypeVar("_Rules", bound=Rules)


class RulesFile(Generic[_Rules]):
    """Follows a file from `start` to `close`. A bad version is recorded, and the last good one stays in force."""

    def __init__(self, path: Path, parse: Callable[[str, str], _Rules], record: Record, every: float) -> None:
        """`parse(text, source)` raises RulesError. `every`: seconds between checks of the file.

        Raises RulesError: a server does not start with bad rules.
        """
        self._path = path
        self._parse = parse
        self._record = record
        self._failed = False
        # Before the file is first read, so that a change in between counts.
        self._watch = FileWatch((path,), self.reload, every)
        self._current, self._fingerprint = self._read()

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
            new, fingerprint = self._read()
        except RulesError as error:
            self._failed = True
            self._record(SecurityEvent(Event.POLICY_RELOAD_FAILED, detail=str(error)))
            return
        # A file that was touched and not changed is not worth a line; one that is good again is.
        if fingerprint != self._fingerprint or self._failed:
            changes = new.changes_since(self._current)
            detail = f"{self._path}: sha256 {self._fingerprint} -> {fingerprint}; {changes}"
            self._record(SecurityEvent(Event.POLICY_CHANGED, detail=detail))
        self._failed = False
        self._current, self._fingerprint = new, fingerprint

    def _read(self) -> tuple[_Rules, str]:
        """The rules, and how `sha256sum` of the file begins."""
        text = read_text(self._path)
        return self._parse(text, str(self._path)), hashlib.sha256(text.encode()).hexdigest()[:12]
