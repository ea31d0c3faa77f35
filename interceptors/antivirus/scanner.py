"""The scanner: verdicts on uploads from clamd or from memory, and a watch on whether clamd answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime

from interceptors.antivirus.clamav import (
    CHUNK,
    Clamd,
    ClamdStream,
    ScanFailedError,
    ScannerUnavailableError,
    TooLargeError,
    Version,
)
from interceptors.antivirus.digest import sha256
from interceptors.antivirus.hang import HangWatch
from interceptors.antivirus.pool import Pool
from interceptors.antivirus.session import ScanSession
from interceptors.antivirus.verdicts import Infected, SharedVerdicts, Verdict, VerdictCache
from interceptors.background import BackgroundTask
from interceptors.calls.hooks import Buffer

log = logging.getLogger("interceptors.antivirus.antivirus")

_ZEROS = bytes(CHUNK)
_PROBE_AT_ONCE = 16 * 1024 * 1024
"""Largest scan that the start waits for (0.3 s); a larger one is done in the background."""


@dataclass(frozen=True, slots=True)
class ScannerState:
    """For metrics and `doctor`. Times are in seconds."""

    healthy: bool
    """Whether clamd answered when it was last asked."""
    reason: str
    """Why not; empty if it did."""
    version: str
    """As clamd last reported it; empty before that."""
    signatures: int
    """Version number of ClamAV's own signatures; 0: none, or not known yet, and then no verdict is remembered."""
    signatures_age: float | None
    """Since they were made; None if clamd does not say."""
    cached: int
    cache_hits: int
    connections: int
    counts: Counter[str]
    """Scans by outcome: clean, infected, cached, too_large, failed, away. Of these, uploads by when they were sent to clamd:
    overlapped, afterwards. And calls that passed unscanned: skipped."""
    scan_seconds: float
    """Spent waiting for clamd, in all."""


class Antivirus:
    """One for all calls. `start` before the server listens, `close` after it.

    While clamd does not answer, scans fail at once instead of each waiting for its own timeout; clamd is tried every
    `retry_every` seconds, and used again as soon as it answers.
    """

    def __init__(
        self,
        clamd: Clamd,
        *,
        stream_max_bytes: int,
        connections: int = 16,
        connection_timeout: float = 10.0,
        cache_entries: int = 10_000,
        cache_seconds: float = 3600.0,
        shared: SharedVerdicts | None = None,
        poll_every: float = 30.0,
        retry_every: float = 1.0,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`stream_max_bytes`: of one scan, at most clamd's StreamMaxLength; `start` asks for it.

        `connection_timeout`: seconds a scan waits for a connection. `shared`: verdicts of other servers. `poll_every`: seconds
        between checks of the signatures' version. `now` times the cache; `wall` is Unix time, for their age.
        """
        self.clamd = clamd
        self.stream_max_bytes = stream_max_bytes
        self.pool = Pool(clamd, connections, connection_timeout)
        self.counts: Counter[str] = Counter()
        self._cache = VerdictCache(cache_entries, cache_seconds, now, shared)
        self._poll_every = poll_every
        self._retry_every = retry_every
        self._wall = wall
        self._version: Version | None = None
        self._unavailable = ""
        """Why clamd is not used at the moment; empty: it is."""
        self._probed = False
        self._scan_seconds = 0.0
        self._check_now = asyncio.Event()
        self._watch = BackgroundTask(f"antivirus: the watch on clamd at {clamd.address}", self._keep_watch)
        self._hang_watch = HangWatch(clamd, self._lost)

    @property
    def state(self) -> ScannerState:
        """As of now."""
        version = self._version
        return ScannerState(
            healthy=version is not None and not self._unavailable,
            reason=self._unavailable,
            version=version.text if version else "",
            signatures=version.signatures if version else 0,
            signatures_age=_age(version.date, self._wall()) if version else None,
            cached=len(self._cache),
            cache_hits=self._cache.hits,
            connections=self.pool.open,
            counts=Counter(self.counts),
            scan_seconds=self._scan_seconds,
        )

    async def start(self) -> None:
        """Does not fail while clamd is unavailable: calls do, until it answers.

        Raises TooLargeError if clamd answers and does not take `stream_max_bytes`.
        """
        await self.refresh()
        if not self._unavailable:
            with contextlib.suppress(ScannerUnavailableError):
                await self.check_stream_limit()
                if self.stream_max_bytes <= _PROBE_AT_ONCE:
                    await self.probe()
                else:
                    self._check_now.set()
        self._watch.start()
        self._hang_watch.start()

    async def close(self) -> None:
        """Idempotent."""
        await self._watch.close()
        await self._hang_watch.close()
        await self._cache.close()

    async def scan(self, content: Buffer) -> Verdict:
        """Of a complete upload. Raises TooLargeError, ScannerUnavailableError and its kind ScanFailedError."""
        self._check_size(len(content))
        digest = await sha256(content)
        return await self._remembered(digest) or await self._judge(digest, self._scan_whole(content))

    def session(self) -> ScanSession:
        """For an upload that comes in; `finish` gives the verdict."""
        return ScanSession(self._check_size, self._upload_stream, self._lost)

    async def finish(self, session: ScanSession, content: Buffer) -> Verdict:
        """`content`: all that the session was fed, to be sent once more if its connection broke. Raises as `scan`."""
        if len(content) != session.size:
            raise ValueError("a session is finished with what it was fed")
        try:
            digest = session.sha256
            verdict = await self._remembered(digest)
            if verdict is not None:
                return verdict
            stream = await session.end()
            if stream is not None:
                self.counts["overlapped"] += 1
                return await self._judge(digest, stream.verdict())
            await session.drop()  # before another connection is waited for
            self.counts["afterwards"] += 1
            return await self._judge(digest, self._scan_whole(content))
        finally:
            await session.drop()

    async def refresh(self) -> None:
        """Ask clamd for its version, which shows whether it answers and whether remembered verdicts still hold."""
        try:
            version = await self.clamd.version()
        except ScannerUnavailableError as error:
            self._set_unavailable(error)
            return
        if self._unavailable:
            # It may have been restarted with other signatures of an operator's own, which the version does not count.
            self._cache.clear()
            log.warning("antivirus: clamd at %s is available again", self.clamd.address)
            self._unavailable = ""
        if version != self._version:
            log.info("antivirus: clamd at %s is %s", self.clamd.address, version.text)
            self._version = version
        self._cache.use(version.text if version.signatures else "")

    async def check_stream_limit(self) -> None:
        """Takes 0.2 s. Raises TooLargeError if StreamMaxLength is less than `stream_max_bytes`, and ScannerUnavailableError."""
        try:
            await self.clamd.check_stream_limit(self.stream_max_bytes)
        except TooLargeError as error:
            raise self._limit(error) from None

    async def probe(self) -> None:
        """Scan `stream_max_bytes` zeros, which finds the limits that clamd does not tell (512 MiB: 4 s).

        Raises TooLargeError if it takes less, and ScannerUnavailableError.
        """
        try:
            async with self.pool.scan() as stream:
                for left in range(self.stream_max_bytes, 0, -CHUNK):
                    await stream.send(memoryview(_ZEROS)[: min(left, CHUNK)])
                await stream.end()
                await stream.verdict()
        except TooLargeError as error:
            raise self._limit(error) from None
        self._probed = True

    def _limit(self, error: TooLargeError) -> TooLargeError:
        return TooLargeError(f"clamd at {self.clamd.address} does not take {self.stream_max_bytes} bytes: {error}")

    def _check_size(self, size: int) -> None:
        """Raises TooLargeError. clamd cuts the connection of a stream that is too long, so it is never sent one."""
        if size > self.stream_max_bytes:
            self.counts["too_large"] += 1
            raise TooLargeError(f"an upload may have {self.stream_max_bytes} bytes to be scanned")

    def _upload_stream(self) -> AbstractAsyncContextManager[ClamdStream] | None:
        return self.pool.upload() if not self._unavailable and self.pool.has_place else None

    async def _remembered(self, digest: bytes) -> Verdict | None:
        verdict = await self._cache.find(digest)
        if verdict is not None:
            self.counts["cached"] += 1
        return verdict

    async def _scan_whole(self, content: Buffer) -> Verdict:
        if self._unavailable:
            raise ScannerUnavailableError(self._unavailable)
        async with self.pool.scan() as stream:
            await stream.send(content)
            await stream.end()
            return await stream.verdict()

    async def _judge(self, digest: bytes, scanning: Awaitable[Verdict]) -> Verdict:
        """Count and remember the verdict, or count the error."""
        version = self._cache.version  # before the scan, which may not use signatures loaded while it runs
        began = time.perf_counter()
        try:
            verdict = await self._hang_watch.unless_hung(scanning)
        except TooLargeError as error:
            self.counts["too_large"] += 1
            log.warning("antivirus: clamd at %s does not scan all of an upload: %s", self.clamd.address, error)
            raise
        except ScanFailedError as error:
            self.counts["failed"] += 1
            log.warning("antivirus: no verdict from clamd at %s: %s", self.clamd.address, error)
            self._check_now.set()  # the upload may have crashed it
            raise
        except ScannerUnavailableError as error:
            self.counts["away"] += 1
            if not self._unavailable:
                self._lost(error)
            raise
        finally:
            self._scan_seconds += time.perf_counter() - began
        self.counts["infected" if isinstance(verdict, Infected) else "clean"] += 1
        self._cache.put(digest, verdict, version)
        return verdict

    def _lost(self, error: ScannerUnavailableError) -> None:
        """Clamd did not answer a scan: from now on no call waits for it until it has answered the watch."""
        self._set_unavailable(error)
        self._check_now.set()

    def _set_unavailable(self, error: ScannerUnavailableError) -> None:
        if not self._unavailable:
            self._unavailable = str(error)
            log.error("antivirus: clamd at %s is unavailable: %s", self.clamd.address, error)

    async def _keep_watch(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._retry_every if self._unavailable else self._poll_every):
                    await self._check_now.wait()
            self._check_now.clear()
            try:
                await self.refresh()
                if not self._unavailable and not self._probed:
                    await self.probe()
            except TooLargeError as error:
                self._probed = True  # logged once; uploads that are too large are refused one by one
                log.error("antivirus: %s", error)
            except ScannerUnavailableError:
                pass  # the next refresh finds and logs it


def _age(date: str, now: float) -> float | None:
    """In seconds. clamd writes its local time without a zone: off by hours at most, where signatures are stale after days."""
    try:
        return max(0.0, now - datetime.strptime(date, "%a %b %d %H:%M:%S %Y").timestamp())
    except ValueError:
        return None
