"""What a virus scanner says of an upload, and what it has said before."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Clean:
    """No signature was found in it."""


@dataclass(frozen=True, slots=True)
class Infected:
    """`signature`: its name as the scanner has it, printable and short."""

    signature: str


Verdict: TypeAlias = Clean | Infected


class VerdictCache:
    """Verdicts by SHA-256, of the one version of the signatures that is in force; the least recently used go first.

    Nothing is kept while the version is empty: a scanner that cannot say which signatures it has may have got others since.
    `seconds` bounds what the version does not tell: it counts ClamAV's own signatures, not those an operator adds beside them.
    """

    def __init__(self, entries: int, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self.hits = 0
        """Lookups that were answered, for metrics."""
        self._most = entries
        self._seconds = seconds
        self._now = now
        self._version = ""
        self._kept: OrderedDict[bytes, tuple[Verdict, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def version(self) -> str:
        """Of the signatures in force."""
        return self._version

    def use(self, version: str) -> None:
        """From now on these signatures are in force; what others said is forgotten."""
        if version != self._version:
            self._version = version
            self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def get(self, digest: bytes) -> Verdict | None:
        """What was said of it with the signatures in force."""
        known = self._kept.get(digest)
        if known is None:
            return None
        verdict, until = known
        if until <= self._now():
            del self._kept[digest]
            return None
        self._kept.move_to_end(digest)
        self.hits += 1
        return verdict

    def put(self, digest: bytes, verdict: Verdict, version: str) -> None:
        """`version`: in force when the scan began. Others may be by now, and then it is worth nothing."""
        if not version or version != self._version or self._most < 1:
            return
        self._kept[digest] = verdict, self._now() + self._seconds
        self._kept.move_to_end(digest)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
