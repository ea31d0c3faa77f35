"""When keys were last used, written in batches beside the calls: no call waits for it, and none fails by it."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable

from interceptors.auth.api_keys.store import KeyRecord, KeyStore, KeyStoreError
from interceptors.background import BackgroundTask

log = logging.getLogger("interceptors.auth.keys.last_used")

EVERY = 60.0
"""Seconds between two writes for one key, by all servers together: each sees in the database what the others wrote."""
BATCH = 5.0
"""Seconds that uses are gathered for before they are written."""
WRITE_LIMIT = 2.0
ENTRIES = 10_000


class LastUsed:
    """Belongs to one event loop. `now` gives Unix seconds."""

    def __init__(self, store: KeyStore, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._noted: OrderedDict[str, float] = OrderedDict()
        self._pending: dict[str, float] = {}
        self._writer = BackgroundTask("writing when API keys were last used", self._write_soon)

    def note(self, record: KeyRecord) -> None:
        """It was used just now."""
        now = self._now()
        if now - max(self._noted.get(record.id, 0.0), record.last_used or 0.0) < EVERY:
            return
        self._noted[record.id] = now
        self._noted.move_to_end(record.id)
        if len(self._noted) > ENTRIES:
            self._noted.popitem(last=False)
        if len(self._pending) < ENTRIES or record.id in self._pending:
            self._pending[record.id] = now
        self._writer.start()

    async def flush(self) -> None:
        """Write what is pending. What cannot be written is kept for the next time."""
        batch, self._pending = self._pending, {}
        try:
            async with asyncio.timeout(WRITE_LIMIT):
                await self._store.touch(batch)
        except (KeyStoreError, TimeoutError) as error:
            self._pending = batch | self._pending
            log.info("when %d API keys were last used could not be written: %s", len(batch), str(error) or "no answer in time")
        except BaseException:
            self._pending = batch | self._pending
            raise

    async def close(self) -> None:
        """Writes what is pending. Idempotent."""
        await self._writer.close()
        if self._pending:
            await self.flush()

    async def _write_soon(self) -> None:
        await asyncio.sleep(BATCH)
        await self.flush()
