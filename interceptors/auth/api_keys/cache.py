"""Caches the keys read from the database, and bridges an outage of it.

What holds depends on the age of a record, counted from when it was requested:
  under 2 s     it is used;
  2 to 4.5 s    it is used, and requested again in the background;
  older         the call waits for the database, at most `timeout`. 4.5 s and half a second are the 5 s within which a
                revocation takes effect on every server.
If the database does not answer, a key that was live when last read stays valid for `outage` seconds from then, and a key
that was never read is undecided. That is safe while the database is unavailable to everyone: a revocation cannot be written
to it either. A server that alone has lost the database accepts a key revoked elsewhere until it reaches the database again
or `outage` is over; `outage = 0` prevents that, and turns the bridge off.
After a failure no call waits: the database is tried once a second in the background until it answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from interceptors.auth.api_keys.store import KeyRecord, KeyStore, KeyStoreError
from interceptors.auth.lru import LruCache
from interceptors.background import BackgroundTask
from interceptors.calls.principal import Undecided

log = logging.getLogger("interceptors.auth.keys.cache")

FRESH = 2.0
STALE = 4.5
RETRY_INTERVAL = 1.0
LOOKUP_TIMEOUT = 2.0
"""Seconds after which a lookup is given up, long after the call that caused it stopped waiting: a database that is slower
than `timeout` and faster than this still keeps the cache fresh."""
START_TIMEOUT = 5.0
"""Seconds a start waits for the database before it continues without."""
MAX_ENTRIES = 10_000
"""Cached keys, and as many cached ids without a key."""
MAX_LOOKUPS = 64
"""Lookups in flight beyond which ids never seen are not looked up: many of them mean that ids are being guessed, and they
must not take the connections that known keys need."""

_UNAVAILABLE = Undecided("key_store_unavailable")


@dataclass(frozen=True, slots=True)
class _Cached:
    record: KeyRecord | None
    """None: no key has that id."""
    requested: float


_NEVER = _Cached(None, float("-inf"))


class KeyCache:
    """Belongs to one event loop. `timeout` and `outage` in seconds, `clock` monotonic."""

    def __init__(self, store: KeyStore, *, timeout: float, outage: float, clock: Callable[[], float]) -> None:
        self.hits = 0
        """Finds answered from the cache, during an outage too, for metrics."""
        self.misses = 0
        """Finds that waited for the database or could not be answered."""
        self.timeout = timeout
        self._store = store
        self._outage = outage
        self._clock = clock
        # Two caches, so that guessed ids do not evict known keys.
        self._known: LruCache[str, _Cached] = LruCache(MAX_ENTRIES)
        self._absent: LruCache[str, _Cached] = LruCache(MAX_ENTRIES)
        self._lookups: dict[str, asyncio.Task[KeyRecord | Undecided | None]] = {}
        self._recovery = BackgroundTask("waiting for the database of API keys", self._recover)
        self._migrated = False

    def __len__(self) -> int:
        """Cached keys, live or not; without ids that have no key."""
        return len(self._known)

    @property
    def unavailable(self) -> bool:
        """Whether the database did not answer the last time."""
        return self._recovery.running

    @property
    def lookups(self) -> int:
        """Lookups in flight."""
        return len(self._lookups)

    async def start(self) -> None:
        """Migrate the database. If it is unavailable the start goes on, and it is tried until it answers."""
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._check()
        except (KeyStoreError, TimeoutError) as error:
            self._lost(error)

    async def close(self) -> None:
        """Idempotent."""
        for lookup in self._lookups.values():
            lookup.cancel()
        await asyncio.gather(*self._lookups.values(), return_exceptions=True)
        await self._recovery.close()

    async def find(self, key_id: str) -> KeyRecord | Undecided | None:
        """Find a key, live or not; None: no key has that id; Undecided: unknown, and the database is unavailable."""
        cached = self._known.get(key_id) or self._absent.get(key_id) or _NEVER
        known = cached.record is not None
        age = self._clock() - cached.requested
        if age < (STALE if known else FRESH):
            if age >= FRESH and not self.unavailable:
                self._lookup(key_id)
            self.hits += 1
            return cached.record
        if self.unavailable or (not known and len(self._lookups) >= MAX_LOOKUPS and key_id not in self._lookups):
            bridged = self._bridge(cached)
            if isinstance(bridged, Undecided):
                self.misses += 1
            else:
                self.hits += 1
            return bridged
        self.misses += 1
        lookup = self._lookup(key_id)
        # Not cancelled after the timeout, nor with the call: other calls wait for the same lookup.
        await asyncio.wait({lookup}, timeout=self.timeout)
        if not lookup.done():
            self._lost(TimeoutError())
        elif not lookup.cancelled() and not isinstance(found := lookup.result(), Undecided):
            return found
        return self._bridge(cached)

    def _bridge(self, cached: _Cached) -> KeyRecord | Undecided:
        """The answer without the database. A revoked key stays revoked, however old the record is."""
        record = cached.record
        if record is not None and (record.revoked is not None or self._clock() - cached.requested <= self._outage):
            return record
        return _UNAVAILABLE

    def _lookup(self, key_id: str) -> asyncio.Task[KeyRecord | Undecided | None]:
        """The lookup in flight for this id, or a new one."""
        lookup = self._lookups.get(key_id)
        if lookup is None:
            lookup = asyncio.create_task(self._read(key_id))
            self._lookups[key_id] = lookup
            lookup.add_done_callback(lambda _: self._lookups.pop(key_id, None))
        return lookup

    async def _read(self, key_id: str) -> KeyRecord | Undecided | None:
        """Read a key from the database into the cache; Undecided if the database does not answer."""
        requested = self._clock()
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT):
                record = await self._store.find(key_id)
        except Exception as error:
            # A bug is handled like an outage: it must neither let a call pass nor reject a key for good.
            if not isinstance(error, KeyStoreError | TimeoutError):
                log.exception("looking up an API key failed unexpectedly")
            self._lost(error)
            return _UNAVAILABLE
        entries, others = (self._absent, self._known) if record is None else (self._known, self._absent)
        others.drop(key_id)
        entries.put(key_id, _Cached(record, requested))
        return record

    def _lost(self, error: Exception) -> None:
        if not self.unavailable:
            reason = "no answer in time" if isinstance(error, TimeoutError) else error
            log.warning("the database of API keys is unavailable (%s): known keys stay valid for %g s", reason, self._outage)
            self._recovery.start()

    async def _recover(self) -> None:
        while True:
            await asyncio.sleep(RETRY_INTERVAL)
            try:
                await self._check()
                break
            except (KeyStoreError, TimeoutError):
                continue
            except Exception:
                log.exception("checking the database of API keys failed unexpectedly")
        log.warning("the database of API keys is available again")

    async def _check(self) -> None:
        """Raises KeyStoreError or TimeoutError while the database is unavailable."""
        if self._migrated:
            async with asyncio.timeout(LOOKUP_TIMEOUT):
                await self._store.find("")
        else:
            await self._store.migrate()
            self._migrated = True
