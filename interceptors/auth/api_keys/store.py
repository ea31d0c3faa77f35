"""Where keys are kept: SQLite, or PostgreSQL for several servers. Asynchronous; belongs to one event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, or_, select, update

from interceptors.auth.api_keys.database import FAULTS, Database, DatabaseUrlError, KeyStoreError, reason
from interceptors.auth.api_keys.migrate import migrate
from interceptors.auth.api_keys.schema import api_keys

if TYPE_CHECKING:
    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_GOODBYE = 2.0
"""Seconds the database may take to close its connections."""

__all__ = ["DatabaseUrlError", "KeyRecord", "KeyStore", "KeyStoreError"]


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is known of a key. Times in Unix seconds."""

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
    """To a minute or so."""
    replaced_by: str | None = None
    """Id of the key it was rotated to."""

    def is_live(self, now: float) -> bool:
        """Neither revoked nor expired. Revoked is revoked, whatever time it says: clocks of machines differ."""
        return self.revoked is None and (self.expires is None or now < self.expires)


class KeyStore:
    """Keys in a database. Every method raises KeyStoreError when it cannot be asked."""

    def __init__(self, url: str, *, timeout: float = 5.0) -> None:
        """`timeout`: seconds a connection may take to come about. Raises DatabaseUrlError; connects to nothing yet."""
        self._database = Database(url)
        self._timeout = timeout
        self._engine: AsyncEngine | None = None
        self._file: tuple[int, int] | None = None

    def __str__(self) -> str:
        """For people; without user and password."""
        return str(self._database)

    @property
    def sqlite_file(self) -> Path | None:
        """Absolute path; None for PostgreSQL."""
        return self._database.sqlite_file

    async def migrate(self) -> None:
        """Make the table, or bring it up to date. Any number of processes may do so at once."""
        try:
            await migrate(self._database, self._timeout)
        except FAULTS as error:
            raise KeyStoreError(reason(error)) from None

    async def find(self, key_id: str) -> KeyRecord | None:
        """The key of that id, live or not."""
        async with self._connection() as connection:
            row = (await connection.execute(select(api_keys).where(api_keys.c.id == key_id))).mappings().one_or_none()
        return None if row is None else _record(row)

    async def list(self) -> Sequence[KeyRecord]:
        """All keys, the oldest first."""
        async with self._connection() as connection:
            rows = (await connection.execute(select(api_keys).order_by(api_keys.c.created, api_keys.c.id))).mappings().all()
        return [_record(row) for row in rows]

    async def add(self, record: KeyRecord) -> None:
        """A new key."""
        async with self._connection() as connection:
            await connection.execute(insert(api_keys).values(_values(record)))

    async def rotate(self, key_id: str, successor: KeyRecord, *, now: float, expires: float) -> bool:
        """Add `successor` and let the old key end at `expires`, or earlier if it did so anyway: both or neither.

        False, and nothing done, if the old key is not there, not live at `now`, or was rotated before.
        """
        old = api_keys.c
        ends_later = or_(old.expires.is_(None), old.expires > expires)
        live = (old.id == key_id, old.revoked.is_(None), old.replaced_by.is_(None), or_(old.expires.is_(None), old.expires > now))
        async with self._connection() as connection:
            # First the condition that takes the row's lock: of two rotations at once the second finds it replaced.
            replaced = await connection.execute(update(api_keys).where(*live).values(replaced_by=successor.id))
            if replaced.rowcount != 1:
                return False
            await connection.execute(update(api_keys).where(old.id == key_id, ends_later).values(expires=expires))
            await connection.execute(insert(api_keys).values(_values(successor)))
        return True

    async def revoke(self, key_id: str, at: float) -> bool:
        """For good. False if there is no such key or it was revoked before: the first time stands."""
        return await self._change(key_id, {"revoked": at}, api_keys.c.revoked.is_(None))

    async def expire(self, key_id: str, at: float) -> bool:
        """Let it end at `at`, or when it did so anyway if that is earlier. False if nothing changed."""
        return await self._change(key_id, {"expires": at}, or_(api_keys.c.expires.is_(None), api_keys.c.expires > at))

    async def touch(self, used: Mapping[str, float]) -> None:
        """When keys were last used, by id. A later time that is there already stands."""
        if not used:
            return
        statement = (
            update(api_keys)
            .where(api_keys.c.id == bindparam("key"), or_(api_keys.c.last_used.is_(None), api_keys.c.last_used < bindparam("at")))
            .values(last_used=bindparam("at"))
        )
        async with self._connection() as connection:
            # In one order everywhere: two servers that lock the same rows in opposite orders wait for each other for ever.
            await connection.execute(statement, [{"key": key_id, "at": at} for key_id, at in sorted(used.items())])

    async def close(self) -> None:
        """Idempotent."""
        engine, self._engine = self._engine, None
        if engine is not None:
            # A server that is there and silent is said goodbye to for ever otherwise.
            with contextlib.suppress(*FAULTS):
                async with asyncio.timeout(_GOODBYE):
                    await engine.dispose()

    async def _change(self, key_id: str, values: dict[str, Any], condition: Any) -> bool:
        async with self._connection() as connection:
            changed = await connection.execute(update(api_keys).where(api_keys.c.id == key_id, condition).values(values))
        return changed.rowcount == 1

    async def _current(self) -> AsyncEngine:
        file = self._database.file_identity()
        if self._engine is not None and file != self._file:
            # Open connections would go on with the file that was removed, and see no revocation.
            await self.close()
        if self._engine is None:
            self._engine, self._file = self._database.engine(self._timeout), file
        return self._engine

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        """One transaction."""
        try:
            engine = await self._current()
            async with engine.begin() as connection:
                yield connection
        except FAULTS as error:
            raise KeyStoreError(reason(error)) from None


def _record(row: RowMapping) -> KeyRecord:
    values = dict(row)
    return KeyRecord(**{**values, "digest": bytes(values["digest"]), "scopes": frozenset(values["scopes"].split())})


def _values(record: KeyRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in KeyRecord.__slots__} | {"scopes": " ".join(sorted(record.scopes))}
