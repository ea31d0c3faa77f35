"""The scanner: verdicts on uploads from clamd or from memory, and a watch on whether clamd is there."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from interceptors.antivirus.clamav import CHUNK, Clamd, ScanFailedError, ScannerUnavailableError, TooLargeError, Version
from interceptors.antivirus.pool import Pool
from interceptors.antivirus.session import ScanSession
from interceptors.antivirus.verdicts import Infected, Verdict, VerdictCache
from interceptors.background import BackgroundTask
from interceptors.calls.hooks import Buffer

log = logging.getLogger("interceptors.antivirus.antivirus")

_INLINE_BYTES = 1 << 20
"""Hashed where it is, in 1 ms; more would hold up the event loop."""
_ZEROS = bytes(CHUNK)


@dataclass(frozen=True, slots=True)
class ScannerState:
    """For metrics and `doctor`. Ages are in seconds."""

    healthy: bool
    """Whether clamd answered when it was last asked."""
    reason: str
    """Why not; empty where it did."""
    version: str
    """As clamd last told it; empty until it has."""
    signatures: int
    """Number of ClamAV's own signatures; 0: clamd has none, or has not told yet. Verdicts are kept only where there is one."""
    signatures_age: float | None
    """Since they were made; None where clamd does not tell."""
    cached: int
    cache_hits: int
    connections: int
    counts: Counter[str]
    """Scans by outcome: clean, infected, cached, too_large, failed, away. Of these, uploads by when they were sent to clamd:
    overlapped, afterwards. And calls that were let pass unseen: skipped."""
    scan_seconds: float
    """Spent in clamd's hands, in all."""


class Antivirus:
    """One for all calls. `start` before the server listens, `close` after it.

    While clamd does not answer, scans fail at once instead of each waiting for its own time-out; it is asked again every
    `retry_every` seconds, and scanned with again as soon as it answers.
    """

    def __init__(
        self,
        clamd: Clamd,
        *,
        stream_max_bytes: int,
        connections: int = 16,
        patience: float = 10.0,
        cache_entries: int = 10_000,
        cache_seconds: float = 3600.0,
        poll_every: float = 30.0,
        retry_every: float = 1.0,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`stream_max_bytes`: the most that is ever sent for one scan, at most clamd's StreamMaxLength; `start` tries it out.

        `patience`: seconds a scan waits for one of the `connections`. `poll_every`: seconds between two looks at the version
        of the signatures. `now` times the cache; `wall` is Unix time, for the age of the signatures.
        """
        self.stream_max_bytes = stream_max_bytes
        self.pool = Pool(clamd, connections, patience)
        self.counts: Counter[str] = Counter()
        self._clamd = clamd
        self._cache = VerdictCache(cache_entries, cache_seconds, now)
        self._poll_every = poll_every
        self._retry_every = retry_every
        self._wall = wall
        self._version: Version | None = None
        self._away = ""
        self._proven = False
        self._scan_seconds = 0.0
        self._look = asyncio.Event()
        self._watch = BackgroundTask(f"antivirus: the watch on clamd at {clamd.address}", self._keep_watch)

    @property
    def state(self) -> ScannerState:
        """As of now."""
        version = self._version
        return ScannerState(
            healthy=version is not None and not self._away,
            reason=self._away,
            version=version.text if version else "",
            signatures=version.signatures if version else 0,
            signatures_age=_age(version.date, self._wall()) if version else None,
            cached=len(self._cache),
            cache_hits=self._cache.hits,
            connections=self.pool.open,
            counts=Counter(self.counts),
            scan_seconds=self._scan_seconds,
        )

    @property
    def away(self) -> str:
        """Why clamd is not asked just now; empty: it is."""
        return self._away

    async def start(self) -> None:
        """Does not fail while clamd is out of reach: calls do, until it is there.

        Raises TooLargeError where clamd is reached and does not take `stream_max_bytes`.
        """
        await self.refresh()
        if not self._away:
            with contextlib.suppress(ScannerUnavailableError):
                await self.probe()
        self._watch.start()

    async def close(self) -> None:
        """Idempotent."""
        await self._watch.close()

    async def scan(self, content: Buffer) -> Verdict:
        """Of something complete. Raises TooLargeError, ScannerAwayError, and of the latter ScanFailedError."""
        self.check_size(len(content))
        digest = await digest_of(content)
        return self.remembered(digest) or await self.scan_unknown(content, digest)

    def session(self) -> ScanSession:
        """For something that comes in."""
        return ScanSession(self)

    async def refresh(self) -> None:
        """Ask clamd for its version, which tells whether it is there and whether what it said before still holds."""
        try:
            version = await self._clamd.version()
        except ScannerUnavailableError as error:
            self._gone(error)
            return
        if self._away:
            # Whoever was away may have been restarted, with signatures of an operator's own that no version tells of.
            self._cache.clear()
            log.warning("antivirus: clamd at %s is back", self._clamd.address)
            self._away = ""
        if version != self._version:
            log.info("antivirus: clamd at %s is %s", self._clamd.address, version.text)
            self._version = version
        self._cache.use(version.text if version.signatures else "")

    async def probe(self, content: bytes = b"") -> Verdict:
        """The verdict on `content` made up with zeros to `stream_max_bytes`: clamd tells nobody how much it takes.

        Raises TooLargeError where it does not take so much, and ScannerAwayError.
        """
        try:
            async with self.pool.scan() as stream:
                await stream.send(content)
                for left in range(self.stream_max_bytes - len(content), 0, -CHUNK):
                    await stream.send(memoryview(_ZEROS)[: min(left, CHUNK)])
                await stream.end()
                verdict = await stream.verdict()
        except TooLargeError as error:
            raise TooLargeError(f"clamd at {self._clamd.address} does not take {self.stream_max_bytes} bytes: {error}") from None
        self._proven = True
        return verdict

    async def looks_at_all(self) -> bool:
        """Whether a test virus is found in an upload of `stream_max_bytes`; for `doctor`, as clamd raises its alarm over it.

        What is larger than clamd's MaxFileSize is clean to it, unless AlertExceedsMax is on. False shows nothing for certain:
        the signature may be one for files that hold nothing else. Raises as `probe`.
        """
        from interceptors.antivirus.commands import TEST_VIRUS  # noqa: PLC0415 - and with it the package

        return isinstance(await self.probe(TEST_VIRUS), Infected)

    def forget(self) -> None:
        """No verdict given so far holds any longer: signatures were added that the version does not tell of."""
        self._cache.clear()

    def check_size(self, size: int) -> None:
        """Raises TooLargeError. clamd answers what is too long by cutting the connection, so it is never sent."""
        if size > self.stream_max_bytes:
            self.counts["too_large"] += 1
            raise TooLargeError(f"an upload may have {self.stream_max_bytes} bytes to be scanned")

    def remembered(self, digest: bytes) -> Verdict | None:
        """What is known of it without asking clamd."""
        verdict = self._cache.get(digest)
        if verdict is not None:
            self.counts["cached"] += 1
        return verdict

    async def scan_unknown(self, content: Buffer, digest: bytes) -> Verdict:
        """As `scan`, of what is not remembered and not too large."""
        async with self.judging(digest) as judged:
            if self._away:
                raise ScannerUnavailableError(self._away)
            async with self.pool.scan() as stream:
                await stream.send(content)
                await stream.end()
                judged.append(await stream.verdict())
        return judged[0]

    @asynccontextmanager
    async def judging(self, digest: bytes) -> AsyncIterator[list[Verdict]]:
        """Counts and remembers the verdict that is put into the list, or counts what is raised instead."""
        version = self._cache.version  # before: what is loaded meanwhile may not have been asked
        began = time.perf_counter()
        judged: list[Verdict] = []
        try:
            yield judged
        except TooLargeError as error:
            self.counts["too_large"] += 1
            log.warning("antivirus: clamd at %s does not look at all of an upload: %s", self._clamd.address, error)
            raise
        except ScanFailedError as error:
            self.counts["failed"] += 1
            log.warning("antivirus: no verdict from clamd at %s: %s", self._clamd.address, error)
            self._look.set()  # it may have died of it
            raise
        except ScannerUnavailableError as error:
            self.counts["away"] += 1
            if not self._away:
                self.lost(error)
            raise
        finally:
            self._scan_seconds += time.perf_counter() - began
        for verdict in judged:
            self.counts["infected" if isinstance(verdict, Infected) else "clean"] += 1
            self._cache.put(digest, verdict, version)

    def lost(self, error: ScannerUnavailableError) -> None:
        """It did not answer: from now on nobody waits for it until it has."""
        self._gone(error)
        self._look.set()

    def _gone(self, error: ScannerUnavailableError) -> None:
        if not self._away:
            self._away = str(error)
            log.error("antivirus: clamd at %s is away: %s", self._clamd.address, error)

    async def _keep_watch(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._retry_every if self._away else self._poll_every):
                    await self._look.wait()
            self._look.clear()
            try:
                await self.refresh()
                if not self._away and not self._proven:
                    await self.probe()
            except TooLargeError as error:
                self._proven = True  # said once; uploads that are too large are refused one by one
                log.error("antivirus: %s", error)
            except ScannerUnavailableError:
                pass  # as the next look will show


def _age(date: str, now: float) -> float | None:
    """In seconds. It writes its own local time, without a zone: off by hours at most, where signatures are stale after days."""
    try:
        return max(0.0, now - datetime.strptime(date, "%a %b %d %H:%M:%S %Y").timestamp())
    except ValueError:
        return None


async def digest_of(content: Buffer) -> bytes:
    """SHA-256, without holding up the event loop."""
    if len(content) <= _INLINE_BYTES:
        return hashlib.sha256(content).digest()
    return await asyncio.to_thread(lambda: hashlib.sha256(content).digest())
