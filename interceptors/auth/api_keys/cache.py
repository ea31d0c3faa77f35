"""What the database last said of each key, how long that holds, and what holds while the database is away.

The rule, by the age of what is known, counted from the moment it was asked for:
  under 2 s     it is used as it is;
  2 to 4.5 s    it is used, and asked for again beside the call;
  older         the call waits for the database, `timeout` at most. 4.5 s and half a second are the 5 s within which a
                revocation takes hold everywhere.
If the database does not answer, a key that was live when last seen goes on for `outage` seconds from then; one that was
never seen cannot be told. That is safe as long as the database is away for everybody: a revocation cannot be written to it
either. From a part of the network that alone has lost the database, a key revoked elsewhere goes on until it is found
again or `outage` is over; `outage = 0` takes that away, and with it the bridge.
After a failure nobody waits: the database is tried once a second, beside the calls, until it answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from interceptors.auth.api_keys.store import KeyRecord, KeyStore, KeyStoreError
from interceptors.background import BackgroundTask
from interceptors.calls.principal import Undecided

log = logging.getLogger("interceptors.auth.keys.cache")

FRESH = 2.0
STALE = 4.5
RETRY_EVERY = 1.0
LOOK_LIMIT = 2.0
"""Seconds after which a lookup is given up, long after the call that wanted it has stopped waiting. A database that takes
longer than `timeout` to answer and less than this still keeps what is known fresh."""
START_LIMIT = 5.0
"""Seconds a start waits for the database before it goes on without."""
ENTRIES = 10_000
"""Keys that are remembered, and as many ids that are no keys."""
MAX_LOOKS = 64
"""Lookups for ids never seen that may be under way. More come from somebody who tries ids; they are not let near the
connections that known keys need."""

_T = TypeVar("_T")
_AWAY = Undecided("key_store_unavailable")


@dataclass(frozen=True, slots=True)
class _Seen:
    record: KeyRecord
    asked: float


class KeyCache:
    """Belongs to one event loop. `timeout` and `outage` in seconds, `clock` monotonic."""

    def __init__(self, store: KeyStore, *, timeout: float, outage: float, clock: Callable[[], float]) -> None:
        self.hits = 0
        self.misses = 0
        """Look-ups, for metrics: told from memory, in an outage as well; and those that waited for the database or in vain."""
        self._store = store
        self._timeout = timeout
        self._outage = outage
        self._clock = clock
        self._known: OrderedDict[str, _Seen] = OrderedDict()
        self._absent: OrderedDict[str, float] = OrderedDict()
        self._looks: dict[str, asyncio.Task[KeyRecord | Undecided | None]] = {}
        self._return = BackgroundTask("trying the database of API keys", self._await_return)
        self._migrated = False

    def __len__(self) -> int:
        """Keys that are remembered, live or not; ids that are none are not counted."""
        return len(self._known)

    @property
    def away(self) -> bool:
        """Whether the database did not answer when it was last asked."""
        return self._return.running

    async def start(self) -> None:
        """Bring the database up to date; without it the start goes on, and it is tried until it is there."""
        try:
            async with asyncio.timeout(START_LIMIT):
                await self._ready()
        except (KeyStoreError, TimeoutError) as error:
            self._lost(str(error) or "no answer in time")

    async def close(self) -> None:
        """Idempotent."""
        for look in self._looks.values():
            look.cancel()
        await asyncio.gather(*self._looks.values(), return_exceptions=True)
        await self._return.close()

    async def find(self, key_id: str) -> KeyRecord | Undecided | None:
        """The key, live or not; None: there is none of that id; Undecided: that cannot be told now."""
        now = self._clock()
        known = self._known.get(key_id)
        if known is not None:
            self._known.move_to_end(key_id)
            age = now - known.asked
            if age < STALE:
                if age >= FRESH and not self.away:
                    self._look(key_id)
                self.hits += 1
                return known.record
        elif now - self._absent.get(key_id, float("-inf")) < FRESH:
            self.hits += 1
            return None
        if self.away or (known is None and len(self._looks) >= MAX_LOOKS and key_id not in self._looks):
            bridged = self._bridge(known)
            if isinstance(bridged, Undecided):
                self.misses += 1
            else:
                self.hits += 1
            return bridged
        self.misses += 1
        look = self._look(key_id)
        # Not cancelled when the time is over, nor with the call: others wait for the same lookup.
        await asyncio.wait({look}, timeout=self._timeout)
        if not look.done():
            self._lost("no answer in time")
        elif not look.cancelled() and not isinstance(found := look.result(), Undecided):
            return found
        return self._bridge(known)

    def _bridge(self, known: _Seen | None) -> KeyRecord | Undecided:
        if known is None:
            return _AWAY
        # What is revoked stays so, however old the news.
        if known.record.revoked is not None or self._clock() - known.asked <= self._outage:
            return known.record
        return _AWAY

    def _look(self, key_id: str) -> asyncio.Task[KeyRecord | Undecided | None]:
        """The lookup for this id that is under way, or a new one."""
        look = self._looks.get(key_id)
        if look is None:
            look = asyncio.create_task(self._ask(key_id))
            self._looks[key_id] = look
            look.add_done_callback(lambda _: self._looks.pop(key_id, None))
        return look

    async def _ask(self, key_id: str) -> KeyRecord | Undecided | None:
        """What the database says, which is kept; Undecided if it says nothing."""
        asked = self._clock()
        try:
            async with asyncio.timeout(LOOK_LIMIT):
                record = await self._store.find(key_id)
        except (KeyStoreError, TimeoutError) as error:
            self._lost(str(error) or "no answer in time")
            return _AWAY
        except Exception:
            # A bug, and no reason to let anybody in or to refuse for good: as if the database were away.
            log.exception("an API key could not be looked up")
            self._lost("a bug")
            return _AWAY
        if record is None:
            self._known.pop(key_id, None)
            _keep(self._absent, key_id, asked)
        else:
            self._absent.pop(key_id, None)
            _keep(self._known, key_id, _Seen(record, asked))
        return record

    def _lost(self, why: str) -> None:
        if not self.away:
            log.warning("the database of API keys is out of reach (%s): keys seen before go on for %g s", why, self._outage)
            self._return.start()

    async def _await_return(self) -> None:
        while True:
            await asyncio.sleep(RETRY_EVERY)
            try:
                await self._ready()
            except (KeyStoreError, TimeoutError):
                continue
            except Exception:
                log.exception("the database of API keys could not be tried")
                continue
            break
        log.warning("the database of API keys answers again")

    async def _ready(self) -> None:
        """Raises KeyStoreError or TimeoutError while the database is away."""
        if self._migrated:
            async with asyncio.timeout(LOOK_LIMIT):
                await self._store.find("")
        else:
            await self._store.migrate()
            self._migrated = True


def _keep(entries: OrderedDict[str, _T], key_id: str, entry: _T) -> None:
    entries[key_id] = entry
    entries.move_to_end(key_id)
    if len(entries) > ENTRIES:
        entries.popitem(last=False)
