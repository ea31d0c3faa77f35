"""One server's view of the API keys, with clocks that tests set."""

from __future__ import annotations

import dataclasses
from typing import Any

from interceptors.auth.api_keys import format as api_key
from interceptors.auth.api_keys.authenticator import KeyAuthenticator
from interceptors.auth.api_keys.store import KeyRecord
from interceptors.calls.principal import Undecided, Verdict
from tests.kit.waiting import eventually

PEPPER = b"pepper of the tests, 32 characters"
NOW = 1_700_000_000.0
UNAVAILABLE = Undecided("key_store_unavailable")


@dataclasses.dataclass
class Clock:
    time: float

    def __call__(self) -> float:
        return self.time


class Replica:
    """`store`: a KeyStore, or a test's own. `clock` ages cached records, `wall` expires keys."""

    def __init__(self, store: Any, *, timeout: float = 30.0, outage: float = 3600.0) -> None:
        self.store = store
        self.clock, self.wall = Clock(1000.0), Clock(NOW)
        self.keys = KeyAuthenticator(store, PEPPER, prefix="alk", timeout=timeout, outage=outage, clock=self.clock, now=self.wall)
        self.cache: Any = self.keys.report.caches["keys"]

    async def verify(self, key: str) -> Verdict:
        return await self.keys.authenticate(key, {})

    async def settled(self) -> None:
        """Wait until no lookup is in flight."""
        await eventually(lambda: not self.cache.lookups, timeout=30.0)

    async def recovered(self) -> None:
        """Wait until the cache has noticed that the database is available again."""
        await eventually(lambda: not self.cache.unavailable, timeout=30.0)


def new_key(prefix: str = "alk", pepper: bytes = PEPPER, **changes: Any) -> tuple[str, KeyRecord]:
    """A complete new key, and what is stored of it."""
    key = api_key.new(prefix)
    digest, mark = api_key.digest(pepper, key), api_key.pepper_mark(pepper)
    record = KeyRecord(key.id, digest, mark, "label", frozenset({"align"}), created=NOW - 100)
    return key.reveal(), dataclasses.replace(record, **changes)
