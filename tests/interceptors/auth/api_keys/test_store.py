"""Keys in both databases: SQLite in a file, and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from interceptors.auth.api_keys import database, migrate
from interceptors.auth.api_keys.database import Database
from interceptors.auth.api_keys.schema import VERSION_TABLE, api_keys, metadata
from interceptors.auth.api_keys.store import DatabaseUrlError, KeyRecord, KeyStore, KeyStoreError
from tests.kit import postgres as pg

postgres_server = pg.postgres_server
postgres = pg.postgres


def record(key_id: str = "k1", **changes: object) -> KeyRecord:
    values = {
        "id": key_id,
        "digest": bytes(range(32)),
        "pepper": "0123456789abcdef",
        "label": "naïve % 'label'; --",
        "scopes": frozenset({"align", "admin"}),
        "created": 1000.25,
        "expires": 2000.5,
    }
    return KeyRecord(**(values | changes))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/keys.db"
    return request.getfixturevalue("postgres").database()


@pytest.fixture
async def store(url):
    opened = KeyStore(url)
    await opened.migrate()
    yield opened
    await opened.close()


async def test_a_key_is_stored_and_found_unchanged(store):
    full = record(revoked=1.5, last_used=2.5, replaced_by="k2")
    await store.add(full)
    await store.add(record("k3", expires=None, scopes=frozenset()))
    assert await store.find("k1") == full
    assert await store.find("k3") == record("k3", expires=None, scopes=frozenset())
    assert await store.find("k2") is None
    assert bytes(full.digest).hex() not in repr(full)


async def test_list_is_in_the_order_of_creation(store):
    for key_id, created in (("b", 2.0), ("c", 1.0), ("a", 2.0)):
        await store.add(record(key_id, created=created))
    assert [found.id for found in await store.list()] == ["c", "a", "b"]


async def test_an_id_can_be_added_only_once(store):
    await store.add(record())
    with pytest.raises(KeyStoreError) as raised:
        await store.add(record(label="other"))
    assert "label" not in str(raised.value)
    assert (await store.find("k1")).label == record().label


async def test_a_revocation_is_final(store):
    await store.add(record())
    assert await store.revoke("k1", 50.0)
    assert not await store.revoke("k1", 60.0)
    assert not await store.revoke("unknown", 50.0)
    assert (await store.find("k1")).revoked == 50.0


async def test_expiry_is_only_brought_forward(store):
    await store.add(record())
    await store.add(record("k2", expires=None))
    assert not await store.expire("k1", 3000.0)
    assert await store.expire("k1", 1500.0)
    assert await store.expire("k2", 3000.0)
    assert [found.expires for found in await store.list()] == [1500.0, 3000.0]


async def test_a_rotation_replaces_a_key(store):
    await store.add(record())
    assert await store.rotate("k1", record("k2"), now=1100.0, expires=1200.0)
    old = await store.find("k1")
    assert (old.expires, old.replaced_by) == (1200.0, "k2")
    assert await store.find("k2") == record("k2")


async def test_a_rotation_does_not_prolong_the_old_key(store):
    await store.add(record(expires=1150.0))
    assert await store.rotate("k1", record("k2"), now=1100.0, expires=1200.0)
    assert (await store.find("k1")).expires == 1150.0


@pytest.mark.parametrize(
    ("changes", "now"), [({"revoked": 5.0}, 1100.0), ({}, 2000.5), ({"replaced_by": "k9"}, 1100.0), ({"id": "other"}, 1100.0)]
)
async def test_a_key_that_cannot_be_rotated_is_not_changed(store, changes, now):
    before = record(**changes)
    await store.add(before)
    assert not await store.rotate("k1", record("k2"), now=now, expires=now + 1)
    assert list(await store.list()) == [before]


async def test_a_rotation_that_fails_halfway_leaves_nothing(store):
    await store.add(record())
    await store.add(record("k2"))
    with pytest.raises(KeyStoreError):
        await store.rotate("k1", record("k2"), now=1100.0, expires=1200.0)
    assert await store.find("k1") == record()


async def test_two_rotations_at_once_make_one_key(store):
    await store.add(record())
    done = await asyncio.gather(*(store.rotate("k1", record(f"n{n}"), now=1100.0, expires=1200.0) for n in range(4)))
    assert sorted(done) == [False, False, False, True]
    assert len(await store.list()) == 2


async def test_last_used_only_moves_forward(store):
    for key_id in ("a", "b"):
        await store.add(record(key_id))
    await store.touch({})
    await store.touch({"b": 20.0, "a": 10.0, "gone": 1.0})
    await store.touch({"a": 5.0, "b": 30.0})
    assert [found.last_used for found in await store.list()] == [10.0, 30.0]


async def test_migrations_produce_the_schema_of_the_code(store, url):
    await store.migrate()
    from sqlalchemy import inspect  # noqa: PLC0415

    engine = Database(url).engine(5.0)
    async with engine.connect() as connection:
        columns = await connection.run_sync(lambda c: inspect(c).get_columns("api_keys"))
        tables = await connection.run_sync(lambda c: inspect(c).get_table_names())
        different = await connection.run_sync(_differences)
    await engine.dispose()
    assert [column["name"] for column in columns] == [column.name for column in api_keys.columns]
    assert sorted(tables) == ["api_keys", VERSION_TABLE]
    assert different == []


def _differences(connection):
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415

    return compare_metadata(MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}), metadata)


async def test_a_newer_schema_is_refused(store, url):
    engine = Database(url).engine(5.0)
    async with engine.begin() as connection:
        await connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    await engine.dispose()
    with pytest.raises(KeyStoreError, match="newer"):
        await store.migrate()


async def test_tasks_migrate_at_the_same_time(url):
    stores = [KeyStore(url) for _ in range(4)]
    await asyncio.gather(*(store.migrate() for store in stores))
    await stores[0].add(record())
    assert await stores[3].find("k1") == record()
    for store in stores:
        await store.close()


_MIGRATE = """
import asyncio, sys
from interceptors.auth.api_keys.store import KeyStore
sys.stdin.readline()
async def main():
    store = KeyStore(sys.argv[1])
    await store.migrate()
    print(len(await store.list()))
    await store.close()
asyncio.run(main())
"""


def test_processes_migrate_at_the_same_time(url):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _MIGRATE, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    done = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, done
    assert [out for out, _ in done] == ["0\n"] * 3


def test_a_store_for_each_event_loop(url):
    """As in each command of the CLI."""

    async def once(key_id: str) -> int:
        store = KeyStore(url)
        try:
            await store.migrate()
            await store.add(record(key_id))
            return len(await store.list())
        finally:
            await store.close()

    assert [asyncio.run(once(key_id)) for key_id in ("a", "b")] == [1, 2]


async def test_a_store_may_be_closed_twice(store):
    await store.close()
    await store.close()


# SQLite


async def test_the_file_is_readable_by_its_owner_only(tmp_path):
    before = os.umask(0)
    try:
        store = KeyStore(f"sqlite:///{tmp_path}/keys.db")
        await store.migrate()
        await store.add(record())
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        await store.close()
    finally:
        os.umask(before)
    assert modes == {"keys.db": 0o600, "keys.db-wal": 0o600, "keys.db-shm": 0o600}


async def test_a_file_uses_write_ahead_logging_and_waits_for_other_writers(tmp_path):
    file = tmp_path / "keys.db"
    store = KeyStore(f"sqlite:///{file}")
    await store.migrate()
    await store.add(record())
    with sqlite3.connect(file, isolation_level=None) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        other.execute("BEGIN IMMEDIATE")
        # A reader does not wait for a writer; a writer does.
        assert await store.find("k1") == record()
        writing = asyncio.create_task(store.revoke("k1", 5.0))
        await asyncio.wait({writing}, timeout=0.05)
        assert not writing.done()
        other.execute("COMMIT")
        assert await writing
    await store.close()


async def test_a_migration_takes_the_write_lock_before_it_reads_the_schema(tmp_path, monkeypatch):
    """Otherwise two processes that start at once would both find no table, and both create it."""
    file = tmp_path / "keys.db"
    free, early = [False], []
    upgrade = migrate.command.upgrade

    def watched(config, revision):
        early.append(not free[0])
        upgrade(config, revision)

    monkeypatch.setattr(migrate.command, "upgrade", watched)
    with sqlite3.connect(file, isolation_level=None) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("BEGIN IMMEDIATE")
        store = KeyStore(f"sqlite:///{file}")
        migrating = asyncio.create_task(store.migrate())
        # Long enough for a migration that does not wait; one that waits passes after any time.
        await asyncio.wait({migrating}, timeout=0.3)
        free[0] = True
        other.execute("COMMIT")
        await migrating
    await store.close()
    assert early == [False]


async def test_a_lookup_does_not_create_a_missing_file(tmp_path):
    store = KeyStore(f"sqlite:///{tmp_path}/keys.db")
    with pytest.raises(KeyStoreError, match="does not exist"):
        await store.find("k1")
    assert list(tmp_path.iterdir()) == []


async def test_a_replaced_file_is_noticed(tmp_path):
    """Removed and made again, or restored from a backup, while a server runs."""
    file = tmp_path / "keys.db"
    store, other = KeyStore(f"sqlite:///{file}"), KeyStore(f"sqlite:///{file}")
    await store.migrate()
    await store.add(record("old"))
    file.rename(tmp_path / "moved.db")
    with pytest.raises(KeyStoreError, match="does not exist"):
        await store.find("old")
    await other.migrate()
    await other.add(record("new"))
    assert [found.id for found in await store.list()] == ["new"]
    await store.close()
    await other.close()


async def test_a_file_that_is_not_a_database(tmp_path):
    (tmp_path / "keys.db").write_text("this is not a database, but a text of some length")
    with pytest.raises(KeyStoreError, match="not a database"):
        await KeyStore(f"sqlite:///{tmp_path}/keys.db").migrate()


async def test_a_missing_directory(tmp_path):
    with pytest.raises(KeyStoreError, match="No such file"):
        await KeyStore(f"sqlite:///{tmp_path}/none/keys.db").migrate()


async def test_a_file_name_with_special_characters(tmp_path):
    file = tmp_path / "keys %41 #1.db"
    store = KeyStore(f"sqlite:///{tmp_path}/keys%20%2541%20%231.db")
    assert store.database.sqlite_file == file
    await store.migrate()
    await store.add(record())
    await store.close()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


async def test_the_package_path_may_contain_percent_signs(tmp_path, monkeypatch):
    """Alembic's settings would expand them as references."""
    import shutil  # noqa: PLC0415

    package = tmp_path / "100%(here)s"
    shutil.copytree(Path(migrate.__file__).parent, package)
    monkeypatch.setattr(migrate, "__file__", str(package / "migrate.py"))
    await KeyStore(f"sqlite:///{tmp_path}/keys.db").migrate()


# URLs


@pytest.mark.parametrize(
    ("given", "file"),
    [
        ("keys.db", Path.cwd() / "keys.db"),
        ("/var/lib/my keys.db", Path("/var/lib/my keys.db")),
        ("sqlite:///keys.db", Path.cwd() / "keys.db"),
        ("sqlite+aiosqlite:////var/lib/keys.db", Path("/var/lib/keys.db")),
        ("postgresql://u:p@db.example/keys", None),
        ("postgresql+asyncpg://u:p@db.example:5433/keys?sslmode=require", None),
    ],
)
def test_urls_of_both_databases(given, file):
    assert KeyStore(given).database.sqlite_file == file


def test_the_name_of_a_store_has_no_user_and_password():
    assert str(KeyStore("postgresql://me:hunter2@db.example:5433/keys")) == "PostgreSQL at db.example:5433, database keys"


@pytest.mark.parametrize(
    "given",
    [
        "",
        ":memory:",
        "postgres:hunter2",
        "u:hunter2@db/keys",
        "host=db password=hunter2 user=u",
        "db/keys?password=hunter2",
        "mysql://u:hunter2@db/keys",
        "postgresql+psycopg2://u:hunter2@db/keys",
        "postgresql://u:hunter2@db:hunter2/keys",
        "postgresql://u:hunter2/x:y@db:5432:1/keys",
        "postgresql://u:pass@hunter2@db/keys",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:keys?mode=memory&uri=true",
        "sqlite://host/keys.db",
    ],
)
def test_unusable_urls_are_refused_without_repeating_them(given):
    with pytest.raises(DatabaseUrlError) as raised:
        KeyStore(given)
    assert "hunter2" not in str(raised.value)


def test_reasons_contain_no_values():
    import asyncpg  # noqa: PLC0415

    error = asyncpg.UniqueViolationError("duplicate key value hunter2")
    assert "hunter2" not in database.reason(error)
    assert database.reason(TimeoutError()) == "no answer in time"
    assert database.reason(ConnectionRefusedError(111, "Connection refused")) == "Connection refused"
    assert database.reason(asyncpg.ClientConfigurationError("postgresql://u:hunter2@h")) == "ClientConfigurationError"
