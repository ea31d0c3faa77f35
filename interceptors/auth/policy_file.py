"""The policy in a file, read again when the file changes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from interceptors.auth.policy import SCOPES, Policy
from interceptors.auth.policy_text import LONGEST, PolicyError, too_long
from interceptors.events import Event, Record, SecurityEvent
from interceptors.file_watch import FileWatch


class PolicyFile:
    """`current` is the last good version: a mistake while the server runs neither opens nor closes anything.

    Calls in progress keep the answer they got; a new policy is asked from the next call on.
    """

    def __init__(
        self, path: Path, served: Collection[str], record: Record, every: float, *, scopes: Collection[str] = SCOPES
    ) -> None:
        """`every`: seconds between looks at the file. Raises PolicyError: a server does not start with a bad policy."""
        self._path = path
        self._served = frozenset(served)
        self._scopes = frozenset(scopes)
        self._record = record
        self._failed = False
        # Before the first reading, so that a change in between counts.
        self._watch = FileWatch((path,), self.reload, every)
        self._current = self._read()

    @property
    def current(self) -> Policy:
        """The policy in force."""
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
        except PolicyError as error:
            self._failed = True
            self._record(SecurityEvent(Event.POLICY_RELOAD_FAILED, detail=str(error)))
            return
        old = self._current
        # Touched and not changed is not worth a line, but that a bad file has been put right is.
        if new.fingerprint != old.fingerprint or self._failed:
            detail = f"{self._path}: sha256 {old.fingerprint} -> {new.fingerprint}; {new.changes_since(old)}"
            self._record(SecurityEvent(Event.POLICY_CHANGED, detail=detail))
        self._failed = False
        self._current = new

    def _read(self) -> Policy:
        try:
            with self._path.open("rb") as file:
                raw = file.read(LONGEST + 1)
        except OSError as error:
            reason = (error.strerror or "input/output error").lower()
            raise PolicyError(f"{self._path}: cannot be read: {reason}; the policy's file has to be readable") from None
        if len(raw) > LONGEST:
            raise too_long(str(self._path))
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise PolicyError(f"{self._path}, line {line}: not UTF-8; save the file as UTF-8") from None
        return Policy.parse(text, str(self._path), self._served, scopes=self._scopes)
