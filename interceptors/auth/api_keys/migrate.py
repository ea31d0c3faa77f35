"""Migrates a database to the newest schema, also if many processes start at once."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import event, pool, text

from interceptors.auth.api_keys.database import Database, KeyStoreError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

_TIMEOUT = 30.0
"""Seconds for a migration, including the wait for that of another process."""
ADVISORY_LOCK = 0x06F7_C680_A3FB_FE99
"""The first 63 bits of SHA-256("api_keys"): a lock that no other program takes by accident."""
_POLL = 0.02
# alembic.context and alembic.op refer to the one migration that runs in a process. A lock of threads and not of asyncio,
# because there may be several event loops; acquired without blocking, because there may be one.
_alembic = threading.Lock()


async def migrate(database: Database, connect_timeout: float) -> None:
    """Apply the missing migrations. `connect_timeout` in seconds. Raises KeyStoreError, and what the drivers raise.

    A PostgreSQL database that is up to date is only read, so a server's role need not have the right to change tables.
    """
    database.make_file()
    engine = database.engine(connect_timeout, poolclass=pool.NullPool)
    try:
        async with asyncio.timeout(_TIMEOUT):
            if database.sqlite_file is not None:
                _begin_immediate(engine)
                async with engine.connect() as connection:
                    await _write_ahead((await connection.get_raw_connection()).driver_connection)
            async with engine.begin() as connection:
                if database.sqlite_file is None:
                    # Of the transaction and not of the session, so that it is released however that ends.
                    await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
                # After the database's lock: a migration that waits for that must not block those of other databases.
                while not _alembic.acquire(blocking=False):  # noqa: ASYNC110 - an event would belong to one loop
                    await asyncio.sleep(_POLL)
                try:
                    await connection.run_sync(_upgrade)
                finally:
                    _alembic.release()
    finally:
        await engine.dispose()


def _begin_immediate(engine: AsyncEngine) -> None:
    """SQLite: every transaction takes the write lock when it begins, and tables are created inside transactions.

    By default Python's driver begins late and commits before a CREATE TABLE, so two processes could migrate at once.
    """

    @event.listens_for(engine.sync_engine, "connect")
    def _no_implicit_transactions(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine.sync_engine, "begin")
    def _lock(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


async def _write_ahead(connection: Any) -> None:
    """Let readers work beside a writer. The file stores the mode, which cannot be changed inside a transaction."""
    while True:
        try:
            await connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            # SQLite does not wait here for another process that does the same, whatever the busy timeout is.
            if "locked" not in str(error):
                raise
            await asyncio.sleep(_POLL)


def _upgrade(connection: Connection) -> None:
    config = Config()
    # Config expands % references, though there is no file.
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        # Fails closed: a newer schema may hold conditions on a key that this version would not check.
        raise KeyStoreError("the key database was migrated by a newer version of this program") from None
