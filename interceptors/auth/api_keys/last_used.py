"""Records when keys were last used. Written in batches in the background: no call waits for it or fails because of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from interceptors.auth.api_keys.store import KeyRecord, KeyStore, KeyStoreError
from interceptors.auth.lru import LruCache
from interceptors.background import BackgroundTask

log = logging.getLogger("interceptors.auth.keys.last_used")

INTERVAL = 60.0
"""Seconds between two writes for one key, by all servers together: each reads from the database what the others wrote."""
BATCH = 5.0
"""Seconds for which uses are collected before they are written."""
WRITE_TIMEOUT = 2.0
MAX_ENTRIES = 10_000


class LastUsed:
    """Belongs to one event loop. `now`: Unix seconds."""

    def __init__(self, store: KeyStore, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._noted: LruCache[str, float] = LruCache(MAX_ENTRIES)
        self._pending: dict[str, float] = {}
        self._writer = BackgroundTask("writing when API keys were last used", self._write_soon)

    def note(self, record: KeyRecord) -> None:
        """Note that a key was used just now."""
        now = self._now()
        if now - max(self._noted.get(record.id) or 0.0, record.last_used or 0.0) < INTERVAL:
            return
        self._noted.put(record.id, now)
        if len(self._pending) < MAX_ENTRIES or record.id in self._pending:
            self._pending[record.id] = now
        self._writer.start()

    async def flush(self) -> None:
        """Write what is pending. If that fails it stays pending, for the next time."""
        batch, self._pending = self._pending, {}
        try:
            async with asyncio.timeout(WRITE_TIMEOUT):
                await self._store.touch(batch)
        except BaseException as error:
            self._pending = batch | self._pending
            if not isinstance(error, KeyStoreError | TimeoutError):
                raise
            log.info("could not write when %d API keys were last used: %s", len(batch), str(error) or "no answer in time")

    async def close(self) -> None:
        """Write what is pending. Idempotent."""
        await self._writer.close()
        if self._pending:
            await self.flush()

    async def _write_soon(self) -> None:
        await asyncio.sleep(BATCH)
        await self.flush()
