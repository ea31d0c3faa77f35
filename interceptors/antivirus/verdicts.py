"""Verdicts on uploads, and a cache of them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from interceptors.background import Tasks


@dataclass(frozen=True, slots=True)
class Clean:
    """No signature was found."""


@dataclass(frozen=True, slots=True)
class Infected:
    """`signature`: its name in the scanner, printable and short."""

    signature: str


Verdict: TypeAlias = Clean | Infected


class SharedVerdicts(Protocol):
    """Verdicts that other servers have got. Neither method raises, nor takes long."""

    async def get(self, digest: bytes, version: str) -> Verdict | None:
        """By these signatures; None: not known, or not to be had."""

    async def put(self, digest: bytes, verdict: Verdict, version: str) -> None:
        """Tell the others."""

    async def close(self) -> None:
        """Idempotent."""


class VerdictCache:
    """Verdicts by SHA-256, of the one version of the signatures in force; the least recently used are dropped first.

    Nothing is kept while the version is empty: the signatures may have changed since. `seconds` bounds the age of a verdict,
    because the version counts ClamAV's own signatures, not those an operator adds beside them.
    """

    def __init__(
        self, entries: int, seconds: float, now: Callable[[], float] = time.monotonic, shared: SharedVerdicts | None = None
    ) -> None:
        """`shared`: what `find` asks if it knows none itself, and what is told of each."""
        self._shared = shared
        self._telling = Tasks()
        self.hits = 0
        """Lookups that found a verdict, for metrics."""
        self._max_entries = entries
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
        """From now on these signatures are in force; verdicts of others are dropped."""
        if version != self._version:
            self._version = version
            self.clear()

    def clear(self) -> None:
        """Drop all verdicts."""
        self._kept.clear()

    async def find(self, digest: bytes) -> Verdict | None:
        """By the signatures in force, here or shared."""
        verdict, version = self.get(digest), self._version
        if verdict is None and version and self._shared is not None:
            verdict = await self._shared.get(digest, version)
            if verdict is not None:
                self.hits += 1
                self._keep(digest, verdict, version)
        return verdict

    async def close(self) -> None:
        """Idempotent."""
        await self._telling.wait()
        if self._shared is not None:
            await self._shared.close()

    def get(self, digest: bytes) -> Verdict | None:
        """By the signatures in force."""
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
        """`version`: in force when the scan began. If another is by now, the verdict is not kept."""
        if not version or version != self._version:
            return
        self._keep(digest, verdict, version)
        if self._shared is not None:
            self._telling.start(self._shared.put(digest, verdict, version))

    def _keep(self, digest: bytes, verdict: Verdict, version: str) -> None:
        if version != self._version or self._max_entries < 1:
            return
        self._kept[digest] = verdict, self._now() + self._seconds
        self._kept.move_to_end(digest)
        while len(self._kept) > self._max_entries:
            self._kept.popitem(last=False)
