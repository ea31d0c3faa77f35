"""From a URL to an engine of SQLAlchemy, and from a driver's errors to one that may be logged."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy import event, exc, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

_POSTGRESQL = frozenset({"postgresql", "postgres", "postgresql+asyncpg"})
_SQLITE = frozenset({"sqlite", "sqlite+aiosqlite"})
_BUSY = 5.0
"""Seconds one writer of SQLite waits for another; a write here takes milliseconds."""
_CONNECTIONS = 4
"""To PostgreSQL, a replica: a lookup takes a millisecond, and a key needs one every few seconds."""
_ESCAPE = "it is no URL; characters of a password other than letters and digits are written as %XX"
# Codes of PostgreSQL whose message is about the connection or rights, and never about values: wrong password, no such
# database, not allowed, out of connections, shutting down.
_TOLD = ("08", "28", "3D", "42501", "53", "57P")


FAULTS = (exc.SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, sqlite3.Error, OSError, TimeoutError)
"""What a database that cannot be asked is told by; SQLAlchemy passes some of a driver's errors on as they are."""


class KeyStoreError(Exception):
    """The database cannot be asked. The message names the reason without password, statement or values: it may be logged."""


class DatabaseUrlError(ValueError):
    """The database's URL cannot be used. The message does not repeat it: it may hold a password."""


class Database:
    """A URL that was understood. Raises DatabaseUrlError if it is not."""

    def __init__(self, url: str) -> None:
        self._url = _parse(url)
        self.sqlite_file: Path | None = None
        """Absolute; None for PostgreSQL."""
        if self._url.drivername in _SQLITE:
            self.sqlite_file = Path(_sqlite_name(self._url)).absolute()

    def __str__(self) -> str:
        """For people: without user and password."""
        if self.sqlite_file is not None:
            return str(self.sqlite_file)
        where = self._url.host or self._url.query.get("host") or "localhost"
        port = f":{self._url.port}" if self._url.port else ""
        return f"PostgreSQL at {where}{port}, database {self._url.database or 'of the user'}"

    def engine(self, timeout: float, **options: Any) -> AsyncEngine:
        """`timeout`: seconds a connection may take to come about, and a wait for a free one."""
        if self.sqlite_file is not None:
            return _sqlite(self.sqlite_file, options)
        return _postgresql(self._url, timeout, options)

    def file_identity(self) -> tuple[int, int] | None:
        """SQLite: which file has the name now. Raises KeyStoreError if none: sqlite3 would make one, for all to read."""
        if self.sqlite_file is None:
            return None
        try:
            found = self.sqlite_file.stat()
        except OSError as error:
            why = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be opened: {error.strerror}"
            raise KeyStoreError(f"{self.sqlite_file} {why}") from None
        return found.st_dev, found.st_ino

    def make_file(self) -> None:
        """SQLite: the file, readable by its owner alone, if it is not there. Raises KeyStoreError."""
        if self.sqlite_file is None:
            return
        try:
            # sqlite3 would make it with the umask's rights; its -wal and -shm files take over those of this one.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.sqlite_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError as error:
            raise KeyStoreError(f"{self.sqlite_file}: {error.strerror or 'cannot be made'}") from None


def reason(error: BaseException) -> str:
    """Why the database could not be asked, in words that may be logged."""
    if isinstance(error, exc.DBAPIError) and error.orig is not None:
        # SQLAlchemy's adapter wraps the driver's own error, which says more.
        return reason(error.orig.__cause__ or error.orig)
    name = type(error).__name__
    match error:
        case exc.TimeoutError():
            told = "all connections are in use"
        case TimeoutError():
            told = "no answer in time"
        case asyncpg.PostgresError():
            code = error.sqlstate or "none"
            said = str(error).splitlines()
            told = f"{said[0] if said and code.startswith(_TOLD) else name} (SQLSTATE {code})"
        case OSError():
            # Without a number it is asyncpg's own: the server's address, and that it takes no TLS.
            told = error.strerror or str(error) or name
        case sqlite3.Error():
            # "database is locked", "no such table: api_keys": constants of SQLite, no values.
            told = str(error)
        case _:
            told = name
    return told


def _parse(text: str) -> URL:
    try:
        url = make_url(text)
    except (exc.ArgumentError, ValueError):
        # An unescaped @ or : of a password ends up in the port and in the library's message.
        raise DatabaseUrlError(_ESCAPE) from None
    if url.drivername not in _POSTGRESQL | _SQLITE:
        raise DatabaseUrlError("it has to be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME")
    if url.drivername in _SQLITE:
        _sqlite_name(url)
    elif "@" in (url.host or ""):
        # The rest of a password with an unescaped @; hosts are named in messages.
        raise DatabaseUrlError(_ESCAPE)
    return url


def _sqlite_name(url: URL) -> str:
    name = url.database or ""
    if not name or name == ":memory:" or name.startswith("file:") or "mode" in url.query:
        raise DatabaseUrlError("sqlite:///FILE needs the name of a file: keys in memory are gone when the command ends")
    if url.host:
        raise DatabaseUrlError("sqlite:// needs three slashes before a relative file and four before an absolute one")
    return name


def _sqlite(file: Path, options: dict[str, Any]) -> AsyncEngine:
    # No pool that pings: there is no connection to lose. The URL is made anew, so that none of its parameters slip in.
    return create_async_engine(
        make_url("sqlite+aiosqlite://").set(database=str(file)), connect_args={"timeout": _BUSY}, hide_parameters=True, **options
    )


def _postgresql(url: URL, timeout: float, options: dict[str, Any]) -> AsyncEngine:
    # asyncpg reads the URL itself, as libpq would: sslmode, sslrootcert, sockets.
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)

    async def connect(*_: Any, **__: Any) -> Any:
        return await asyncpg.connect(dsn, timeout=timeout, server_settings={"application_name": "aligner-keys"})

    if "poolclass" not in options:
        # The ping lets a restarted server heal by itself: the dead connection is noticed before it is used.
        options |= {"pool_size": _CONNECTIONS, "max_overflow": 0, "pool_timeout": timeout, "pool_pre_ping": True}
    return create_async_engine("postgresql+asyncpg://", async_creator=connect, hide_parameters=True, **options)


def begin_immediate(engine: AsyncEngine) -> None:
    """SQLite: every transaction takes the write lock when it begins, and tables are made inside transactions.

    By default Python's driver begins late and commits by itself before a CREATE TABLE: two processes could migrate at once.
    """

    @event.listens_for(engine.sync_engine, "connect")
    def _no_magic(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine.sync_engine, "begin")
    def _lock(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
