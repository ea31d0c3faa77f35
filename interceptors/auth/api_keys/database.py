"""Makes a SQLAlchemy engine from a URL, and turns drivers' errors into messages that may be logged."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import URL, exc, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

_POSTGRESQL = frozenset({"postgresql", "postgres", "postgresql+asyncpg"})
_SQLITE = frozenset({"sqlite", "sqlite+aiosqlite"})
_BUSY_TIMEOUT = 5.0
"""Seconds one writer of SQLite waits for another; a write here takes milliseconds."""
_CONNECTIONS = 4
"""To PostgreSQL, per server: a lookup takes a millisecond, and a key needs one every few seconds."""
_ESCAPE = "neither a path nor a URL; write characters of the password other than letters and digits as %XX"
_LOGGED_CODES = ("08", "28", "3D", "42501", "53", "57P")
"""SQLSTATE prefixes whose message is about the connection or rights and never contains values: wrong password, no such
database, permission denied, too many connections, shutting down."""

FAULTS = (exc.SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, sqlite3.Error, OSError, TimeoutError)
"""What an unavailable database raises; SQLAlchemy passes some of a driver's errors on as they are."""


class KeyStoreError(Exception):
    """The database is unavailable. The message is the reason, without password, statement or values: it may be logged."""


class DatabaseUrlError(ValueError):
    """The database's URL cannot be used. The message does not repeat it, as it may contain a password."""


def _is_path(database: str) -> bool:
    """Whether it names a file. What resembles a mistyped URL or libpq's "password=..." does not: messages name the file."""
    return re.search(r"^\w[\w+.-]*:|[@?=]", database) is None


class Database:
    """A parsed URL, or the path of a SQLite file. Raises DatabaseUrlError."""

    def __init__(self, url: str) -> None:
        try:
            self._url = parsed = URL.create("sqlite", database=url) if _is_path(url) else make_url(url)
        except (exc.ArgumentError, ValueError):
            # An unescaped @ or : of a password ends up in the port and in the library's message.
            raise DatabaseUrlError(_ESCAPE) from None
        self.sqlite_file: Path | None = None
        """Absolute; None for PostgreSQL."""
        if parsed.drivername in _SQLITE:
            name = parsed.database or ""
            if not name or name == ":memory:" or name.startswith("file:") or "mode" in parsed.query:
                raise DatabaseUrlError("it needs the name of a file: keys in memory are lost when the command ends")
            if parsed.host:
                raise DatabaseUrlError("sqlite:// needs three slashes before a relative file and four before an absolute one")
            self.sqlite_file = Path(name).absolute()
        elif parsed.drivername not in _POSTGRESQL:
            raise DatabaseUrlError("it has to be the path of a file, sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME")
        elif "@" in (parsed.host or ""):
            # The rest of a password with an unescaped @; hosts are named in messages.
            raise DatabaseUrlError(_ESCAPE)

    def __str__(self) -> str:
        """For messages: without user and password."""
        if self.sqlite_file is not None:
            return str(self.sqlite_file)
        where = self._url.host or self._url.query.get("host") or "localhost"
        port = f":{self._url.port}" if self._url.port else ""
        return f"PostgreSQL at {where}{port}, database {self._url.database or 'of the user'}"

    def engine(self, timeout: float, **options: Any) -> AsyncEngine:
        """Make an engine, not connected yet. `timeout`: seconds for a connection, and to wait for a free one."""
        if self.sqlite_file is not None:
            # No pool that pings: there is no connection to lose. The URL is built anew, to drop parameters it may have.
            url = make_url("sqlite+aiosqlite://").set(database=str(self.sqlite_file))
            return create_async_engine(url, connect_args={"timeout": _BUSY_TIMEOUT}, hide_parameters=True, **options)
        # asyncpg parses the URL itself, as libpq would: sslmode, sslrootcert, sockets.
        dsn = self._url.set(drivername="postgresql").render_as_string(hide_password=False)

        async def connect(*_: Any, **__: Any) -> Any:
            return await asyncpg.connect(dsn, timeout=timeout, server_settings={"application_name": "aligner-keys"})

        if "poolclass" not in options:
            # With the ping a dead connection is noticed before it is used, so that a restart of the database is survived.
            options |= {"pool_size": _CONNECTIONS, "max_overflow": 0, "pool_timeout": timeout, "pool_pre_ping": True}
        return create_async_engine("postgresql+asyncpg://", async_creator=connect, hide_parameters=True, **options)

    def file_identity(self) -> tuple[int, int] | None:
        """SQLite: device and inode of the file. Raises KeyStoreError if none: sqlite3 would make one that everyone can read."""
        if self.sqlite_file is None:
            return None
        try:
            found = self.sqlite_file.stat()
        except OSError as error:
            reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be opened: {error.strerror}"
            raise KeyStoreError(f"{self.sqlite_file} {reason}") from None
        return found.st_dev, found.st_ino

    def make_file(self) -> None:
        """SQLite: create the file, readable by its owner only, unless it exists. Raises KeyStoreError."""
        if self.sqlite_file is None:
            return
        try:
            # sqlite3 would create it with the umask's mode; its -wal and -shm files get the mode of this one.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.sqlite_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError as error:
            raise KeyStoreError(f"{self.sqlite_file}: {error.strerror or 'cannot be made'}") from None


def reason(error: BaseException) -> str:
    """Why the database is unavailable, in words that may be logged."""
    if isinstance(error, exc.DBAPIError) and error.orig is not None:
        # SQLAlchemy's adapter wraps the driver's own error, which says more.
        return reason(error.orig.__cause__ or error.orig)
    text = type(error).__name__
    match error:
        case exc.TimeoutError():
            text = "all connections are in use"
        case TimeoutError():
            text = "no answer in time"
        case asyncpg.PostgresError():
            code, lines = error.sqlstate or "none", str(error).splitlines()
            text = f"{lines[0] if lines and code.startswith(_LOGGED_CODES) else text} (SQLSTATE {code})"
        case OSError():
            # Without a number it is asyncpg's own: the server's address, and that it does not support TLS.
            text = error.strerror or str(error) or text
        case sqlite3.Error():
            # "database is locked", "no such table: api_keys": SQLite's constants, no values.
            text = str(error)
    return text
