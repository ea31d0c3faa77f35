"""Stores keys in SQLite, or in PostgreSQL for several servers. Asynchronous; a store belongs to one event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, or_, select, update

from interceptors.auth.api_keys.database import FAULTS, Database, DatabaseUrlError, KeyStoreError, reason
from interceptors.auth.api_keys.schema import api_keys

if TYPE_CHECKING:
    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_CLOSE_TIMEOUT = 2.0
"""Seconds the database may take to close its connections."""

__all__ = ["DatabaseUrlError", "KeyRecord", "KeyStore", "KeyStoreError"]


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A stored key. Times in Unix seconds."""

    id: str
    digest: bytes = field(repr=False)
    """HMAC-SHA-256 of the key, 32 bytes."""
    pepper: str
    """`pepper_mark` of the pepper it was made with."""
    label: str
    scopes: frozenset[str]
    created: float
    expires: float | None = None
    revoked: float | None = None
    last_used: float | None = None
    """Accurate to about a minute."""
    replaced_by: str | None = None
    """Id of the key it was rotated to."""

    def is_live(self, now: float) -> bool:
        """Neither revoked nor expired. A revocation counts whatever its time, since the clocks of machines differ."""
        return self.revoked is None and (self.expires is None or now < self.expires)


class KeyStore:
    """Keys in a database. Every method raises KeyStoreError if the database is unavailable."""

    def __init__(self, url: str, *, timeout: float = 5.0) -> None:
        """`timeout`: seconds to establish a connection. Does not connect yet. Raises DatabaseUrlError."""
        self.database = Database(url)
        self._timeout = timeout
        self._engine: AsyncEngine | None = None
        self._file: tuple[int, int] | None = None

    def __str__(self) -> str:
        """For messages: without user and password."""
        return str(self.database)

    async def migrate(self) -> None:
        """Create the table or bring it up to date. Any number of processes may do so at once."""
        from interceptors.auth.api_keys.migrate import migrate  # noqa: PLC0415 - alembic is slow to import

        try:
            await migrate(self.database, self._timeout)
        except FAULTS as error:
            raise KeyStoreError(reason(error)) from None

    async def find(self, key_id: str) -> KeyRecord | None:
        """Find the key with that id, live or not."""
        async with self._transaction() as connection:
            row = (await connection.execute(select(api_keys).where(api_keys.c.id == key_id))).mappings().one_or_none()
        return None if row is None else _record(row)

    async def list(self) -> Sequence[KeyRecord]:
        """All keys, the oldest first."""
        async with self._transaction() as connection:
            rows = (await connection.execute(select(api_keys).order_by(api_keys.c.created, api_keys.c.id))).mappings().all()
        return [_record(row) for row in rows]

    async def add(self, record: KeyRecord) -> None:
        """Add a new key."""
        async with self._transaction() as connection:
            await connection.execute(insert(api_keys).values(_values(record)))

    async def rotate(self, key_id: str, successor: KeyRecord, *, now: float, expires: float) -> bool:
        """Add `successor` and let the old key expire at `expires`, unless it does so earlier: both or neither.

        False, and nothing changed, if the old key does not exist, is not live at `now`, or was rotated before.
        """
        old = api_keys.c
        ends_later = or_(old.expires.is_(None), old.expires > expires)
        live = (old.id == key_id, old.revoked.is_(None), old.replaced_by.is_(None), or_(old.expires.is_(None), old.expires > now))
        async with self._transaction() as connection:
            # First the update that takes the row's lock: the second of two concurrent rotations finds the key replaced.
            replaced = await connection.execute(update(api_keys).where(*live).values(replaced_by=successor.id))
            if replaced.rowcount != 1:
                return False
            await connection.execute(update(api_keys).where(old.id == key_id, ends_later).values(expires=expires))
            await connection.execute(insert(api_keys).values(_values(successor)))
        return True

    async def revoke(self, key_id: str, at: float) -> bool:
        """Revoke a key for good. False if it does not exist or was revoked before: the first time is kept."""
        return await self._change(key_id, {"revoked": at}, api_keys.c.revoked.is_(None))

    async def expire(self, key_id: str, at: float) -> bool:
        """Let a key expire at `at`, unless it does so earlier. False if nothing changed."""
        return await self._change(key_id, {"expires": at}, or_(api_keys.c.expires.is_(None), api_keys.c.expires > at))

    async def touch(self, used: Mapping[str, float]) -> None:
        """Store when keys were last used, by id. A later time already stored is kept."""
        if not used:
            return
        statement = (
            update(api_keys)
            .where(api_keys.c.id == bindparam("key"), or_(api_keys.c.last_used.is_(None), api_keys.c.last_used < bindparam("at")))
            .values(last_used=bindparam("at"))
        )
        async with self._transaction() as connection:
            # In the same order everywhere: two servers that lock the same rows in opposite orders would deadlock.
            await connection.execute(statement, [{"key": key_id, "at": at} for key_id, at in sorted(used.items())])

    async def close(self) -> None:
        """Idempotent."""
        engine, self._engine = self._engine, None
        if engine is not None:
            # With a timeout, because a server that does not answer would be waited for forever.
            with contextlib.suppress(*FAULTS):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await engine.dispose()

    async def _change(self, key_id: str, values: dict[str, Any], condition: Any) -> bool:
        async with self._transaction() as connection:
            changed = await connection.execute(update(api_keys).where(api_keys.c.id == key_id, condition).values(values))
        return changed.rowcount == 1

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            file = self.database.file_identity()
            if self._engine is not None and file != self._file:
                # Open connections would go on using the file that was removed, and see no revocation.
                await self.close()
            if self._engine is None:
                self._engine, self._file = self.database.engine(self._timeout), file
            async with self._engine.begin() as connection:
                yield connection
        except FAULTS as error:
            raise KeyStoreError(reason(error)) from None


def _record(row: RowMapping) -> KeyRecord:
    values = dict(row)
    return KeyRecord(**{**values, "digest": bytes(values["digest"]), "scopes": frozenset(values["scopes"].split())})


def _values(record: KeyRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in KeyRecord.__slots__} | {"scopes": " ".join(sorted(record.scopes))}
