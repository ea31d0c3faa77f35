"""Brings a database to the newest schema, however many processes start at once."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import pool, text

from interceptors.auth.api_keys.database import Database, KeyStoreError, begin_immediate

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy.engine import Connection

_LIMIT = 30.0
"""Seconds a migration may take, those of another process that is waited for included."""
_ADVISORY_LOCK = 0x06F7_C680_A3FB_FE99
"""The first 63 bits of SHA-256("api_keys"): a lock no other program takes by chance."""
_POLL = 0.02
# alembic.context and alembic.op stand for the one migration that runs in a process. A lock of threads and not of asyncio,
# because there may be several event loops; waited for without blocking, because there may be one.
_alembic = threading.Lock()


async def migrate(database: Database, connect_timeout: float) -> None:
    """Do what is missing. `connect_timeout` in seconds. Raises KeyStoreError, and what the drivers raise.

    A PostgreSQL database that is up to date is only read: a server whose role may not change tables is content with that.
    """
    database.make_file()
    engine = database.engine(connect_timeout, poolclass=pool.NullPool)
    try:
        async with asyncio.timeout(_LIMIT):
            if database.sqlite_file is not None:
                begin_immediate(engine)
                async with engine.connect() as connection:
                    await _write_ahead((await connection.get_raw_connection()).driver_connection)
            async with engine.begin() as connection:
                if database.sqlite_file is None:
                    # Of the transaction and not of the session: it goes with it, however that ends.
                    await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
                # After the database's lock: whoever waits for that one must not keep this one from others.
                while not _alembic.acquire(blocking=False):  # noqa: ASYNC110 - an event would belong to one loop
                    await asyncio.sleep(_POLL)
                try:
                    await connection.run_sync(_upgrade)
                finally:
                    _alembic.release()
    finally:
        await engine.dispose()


async def _write_ahead(connection: Any) -> None:
    """Readers beside a writer. The file remembers it, and it cannot be changed inside a transaction."""
    while True:
        try:
            await connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            # SQLite does not wait here for another process that does the same, whatever busy timeout is set.
            if "locked" not in str(error):
                raise
            await asyncio.sleep(_POLL)


def _config(connection: Connection) -> Config:
    from alembic.config import Config  # noqa: PLC0415 - a quarter of what importing this package takes

    config = Config()
    # The parser of the file that is not there takes % for the beginning of a reference.
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - as above
    from alembic.util import CommandError  # noqa: PLC0415

    try:
        command.upgrade(_config(connection), "head")
    except CommandError:
        # Fails closed: a newer schema may hold conditions on a key that this version would not look at.
        raise KeyStoreError("the key database was migrated by another, newer version of this program") from None
