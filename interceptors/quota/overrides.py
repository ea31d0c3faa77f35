"""Classes given to principals at run time, for all replicas, kept in Redis beside the counts.

They take precedence over the file's [principals], where a name or pattern given here replaces the same one there; an exact name
takes precedence over patterns, whichever of the two it is from.

They are read every few seconds, and no call waits for that. While Redis is unavailable those read last stay in force; a replica
that starts without Redis uses the file until it answers. A class or name that is not valid on a replica, whose file may be older
than that of the one it was set with, is ignored and logged once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from interceptors.background import BackgroundTask
from interceptors.calls.security_event import Event, Record, SecurityEvent
from interceptors.quota.classes import DEFAULT, QuotaClasses
from interceptors.quota.stores.base import StoreUnavailableError
from interceptors.quota.stores.redis_client import ScriptClient
from interceptors.rules.patterns import pattern_fault

log = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between readings: how long a change takes to apply everywhere."""
MAX_NAMES = 1000
"""In the hash, which every replica reads whole. More of them need a pattern, or the file."""
MAX_CHARACTERS = 2048
"""Of a name."""
_TIMEOUT = 1.0
"""Seconds for a reading; no call waits for it."""

# One hash, field per name or pattern, value the class. It does not expire.
_SCRIPT = """
local mode, name, class = ARGV[1], ARGV[2], ARGV[3]
if mode == 'read' then return redis.call('HGETALL', KEYS[1]) end
local before = redis.call('HGET', KEYS[1], name) or ''
if mode == 'remove' then
  redis.call('HDEL', KEYS[1], name)
elseif before == '' and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  return {'full', ''}
else
  redis.call('HSET', KEYS[1], name, class)
end
return {'done', before}
"""


class TooManyError(Exception):
    """MAX_NAMES names have a class of their own already."""


class OverrideStore:
    """`place` is the URL without user and password. Every method but `close` raises StoreUnavailableError. For one event loop."""

    def __init__(self, url: str, *, prefix: str = "quota", timeout: float = _TIMEOUT) -> None:
        """`url` and `prefix` as for RedisStore; `timeout`: seconds for an answer. Raises ValueError."""
        self._client = ScriptClient(url, _SCRIPT, timeout)
        self.place = self._client.place
        # Without braces, so that it is not taken for the key of a subject.
        self._key = f"{prefix}:classes"
        self.prefix = prefix

    async def read(self) -> dict[str, str]:
        """Class by name or pattern, sorted by name."""
        answer: Sequence[str] = await self._client.run((self._key,), ("read",))
        return dict(sorted(zip(answer[::2], answer[1::2], strict=True)))

    async def put(self, name: str, target: str) -> str | None:
        """Give `name` the class `target`, both checked by the caller. Returns its class here before. Raises TooManyError."""
        outcome, before = await self._client.run((self._key,), ("put", name, target, str(MAX_NAMES)))
        if outcome == "full":
            raise TooManyError(f"{MAX_NAMES} names have a class of their own already")
        return before or None

    async def remove(self, name: str) -> str | None:
        """Leave `name` to the file again. Returns its class here before."""
        _, before = await self._client.run((self._key,), ("remove", name))
        return before or None

    async def close(self) -> None:
        """Idempotent."""
        await self._client.close()


class Overrides:
    """`current`: the classes of the file, with the overrides read last."""

    def __init__(
        self, store: OverrideStore, classes: Callable[[], QuotaClasses], record: Record, *, every: float = EVERY
    ) -> None:
        """`classes`: those of the file in force. Closes the store with itself."""
        self._store = store
        self._classes = classes
        self._record = record
        self._read: Mapping[str, str] = {}
        self._base = self._merged = classes()
        self._ignored: set[tuple[str, str]] = set()
        self._unavailable = False
        self._task = BackgroundTask("quotas: reading the classes set at run time", self.refresh, every=every)

    @property
    def current(self) -> QuotaClasses:
        """The classes in force. Does not wait for Redis."""
        base = self._classes()
        if base is not self._base:  # the file has changed
            self._merge(base, self._read)
        return self._merged

    async def start(self) -> None:
        """Read the overrides, so that they apply to the first call, and follow them. Does not fail if Redis is unavailable."""
        await self.refresh()
        self._task.start()

    async def close(self) -> None:
        """Idempotent."""
        await self._task.close()
        await self._store.close()

    async def refresh(self) -> None:
        """Take in what is set now; if it cannot be read, keep what is in force."""
        try:
            read = await self._store.read()
        except StoreUnavailableError as error:
            if not self._unavailable:
                self._unavailable = True
                what = "quotas: the classes set at run time cannot be read from %s (%s); those last read stay in force"
                log.warning(what, self._store.place, error)
            return
        if self._unavailable:
            self._unavailable = False
            log.warning("quotas: the classes set at run time can be read from %s again", self._store.place)
        if read == self._read:
            return
        before = self.current
        self._merge(self._base, read)
        if self._merged.principals != before.principals:
            detail = f"{self._store.place}: {self._merged.changes_since(before)}"
            self._record(SecurityEvent(Event.QUOTA_CHANGED, detail=detail))

    def _merge(self, base: QuotaClasses, read: Mapping[str, str]) -> None:
        good = known(read, base)
        ignored = {(name, target) for name, target in read.items() if name not in good}
        for name, target in sorted(ignored - self._ignored):
            what = "quotas: %r was put in the class %r at run time, which is ignored: %s"
            log.warning(what, name, target, "no such class" if target not in base.classes else "not the name of a principal")
        self._ignored = ignored
        self._merged = base.with_overrides(good) if good else base
        self._base, self._read = base, read


def name_fault(name: str) -> tuple[str, str] | None:
    """What is wrong with a name or pattern that is given a class, and what to do; None: nothing."""
    if name == "*":
        return f"every principal is in the class {DEFAULT} already", "write mtls:*, jwt:* or key:*"
    if len(name) > MAX_CHARACTERS or not name.isprintable():
        return f"a name has {MAX_CHARACTERS} characters at most, all of them printable", "copy it from the audit log"
    return pattern_fault(name)


def known(read: Mapping[str, str], classes: QuotaClasses) -> dict[str, str]:
    """What was read, without the names and classes that are not valid here."""
    return {name: target for name, target in read.items() if target in classes.classes and name_fault(name) is None}
