"""Several servers on one real PostgreSQL: revocation, outages and recovery. Ages by a clock that tests set."""

from __future__ import annotations

import asyncio
import dataclasses
import logging

import asyncpg
import pytest

from interceptors.auth.api_keys import cache, migrate
from interceptors.auth.api_keys.store import KeyStore, KeyStoreError
from interceptors.calls.principal import Principal, Rejected
from tests.kit import postgres as pg
from tests.kit.key_replica import NOW, UNAVAILABLE, Replica, new_key

postgres_server = pg.postgres_server
postgres = pg.postgres


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(cache, "RETRY_INTERVAL", 0.02)


@pytest.fixture
def url(postgres):
    return postgres.database()


@pytest.fixture
async def replicas(url):
    """Two of them, with long timeouts, so that a busy machine does not look like an outage."""
    made = [Replica(KeyStore(url, timeout=20.0), timeout=20.0) for _ in range(2)]
    for replica in made:
        await replica.keys.start()
    yield made
    for replica in made:
        await replica.keys.close()
        await replica.store.close()


async def add(store: KeyStore) -> tuple[str, Principal]:
    key, record = new_key()
    await store.add(record)
    return key, Principal(f"key:{record.id}", "api_key", record.scopes)


def id_of(principal: Principal) -> str:
    return principal.name.removeprefix("key:")


async def test_a_key_revoked_through_one_server_is_refused_by_the_other(replicas):
    one, other = replicas
    key, principal = await add(one.store)
    assert await other.verify(key) == principal
    assert await one.store.revoke(id_of(principal), NOW)
    # Used, used and refreshed, refused.
    other.clock.time += 1.99
    assert await other.verify(key) == principal
    other.clock.time += 0.01
    assert await other.verify(key) == principal
    await other.settled()
    assert await other.verify(key) == Rejected("key_revoked", principal=principal.name)


async def test_a_key_revoked_between_calls_is_refused(replicas):
    one, other = replicas
    key, principal = await add(one.store)
    assert await other.verify(key) == principal
    assert await one.store.revoke(id_of(principal), NOW)
    other.clock.time += 4.5
    assert await other.verify(key) == Rejected("key_revoked", principal=principal.name)


async def test_an_expiry_set_through_one_server_reaches_the_other(replicas):
    one, other = replicas
    key, principal = await add(one.store)
    assert await other.verify(key) == principal
    assert await one.store.expire(id_of(principal), NOW + 60)
    other.clock.time += 4.5
    assert await other.verify(key) == dataclasses.replace(principal, expires=NOW + 60)


async def test_both_servers_record_use_without_blocking_each_other(replicas):
    one, other = replicas
    keys = [await add(one.store) for _ in range(20)]
    await asyncio.gather(*(replica.verify(key) for replica in replicas for key, _ in keys))
    await asyncio.gather(one.keys.close(), other.keys.close())
    assert {record.last_used for record in await one.store.list()} == {NOW}


async def test_rows_are_locked_in_the_same_order(replicas, url):
    """Two servers that write the same keys in opposite orders would deadlock."""
    store = replicas[0].store
    first, second = sorted([id_of((await add(store))[1]) for _ in range(2)])
    other = await asyncpg.connect(url.replace("+asyncpg", ""))
    statement = "UPDATE api_keys SET last_used = 1 WHERE id = $1"
    transaction = other.transaction()
    await transaction.start()
    await other.execute(statement, first)
    writing = asyncio.create_task(store.touch({second: NOW, first: NOW}))
    await waiting(other, writing, "transactionid")
    await other.execute(statement, second)
    await transaction.commit()
    await writing
    await other.close()
    assert {record.last_used for record in await store.list()} == {NOW}


async def waiting(connection: asyncpg.Connection, task: asyncio.Task[None], kind: str) -> None:
    """Until a session waits for a lock of that kind. Each turn is a round trip to the server."""
    async with asyncio.timeout(60):
        while await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = $1 AND NOT granted", kind) == 0:
            assert not task.done()


async def outage(replica: Replica, known: list[tuple[str, Principal]], unknown: str) -> None:
    """Every known key stays valid, one never read is undecided."""
    replica.clock.time += 100
    for key, principal in known * 3:
        assert await replica.verify(key) == principal
    assert await replica.verify(unknown) == UNAVAILABLE


async def test_the_database_is_stopped_and_started_again(replicas, postgres, caplog):
    one, other = replicas
    known = [await add(one.store) for _ in range(10)]
    unknown, principal = await add(one.store)
    for key, expected in known:
        assert await one.verify(key) == expected
        assert await other.verify(key) == expected
    postgres.stop()
    for replica in replicas:
        await outage(replica, known, unknown)
    with pytest.raises(KeyStoreError, match=r"refused|Connect call failed"):
        await one.store.list()
    postgres.start()
    for replica in replicas:
        await replica.recovered()
        assert await replica.verify(unknown) == principal
    assert await one.store.revoke(id_of(known[0][1]), NOW)
    assert (await other.verify(known[0][0])).check == "key_revoked"
    assert pg.PASSWORD not in caplog.text


async def test_the_database_is_silent_for_a_while(replicas, postgres, monkeypatch):
    (replica, _) = replicas
    known = [await add(replica.store) for _ in range(10)]
    unknown, principal = await add(replica.store)
    for key, expected in known:
        assert await replica.verify(key) == expected
    replica.cache.timeout = 0.05
    monkeypatch.setattr(cache, "LOOKUP_TIMEOUT", 0.2)
    postgres.pause()
    await outage(replica, known, unknown)
    await replica.settled()
    replica.cache.timeout = 20.0
    monkeypatch.setattr(cache, "LOOKUP_TIMEOUT", 20.0)
    postgres.resume()
    await replica.recovered()
    assert await replica.verify(unknown) == principal


async def test_connections_cut_while_idle_are_replaced(replicas, postgres, url):
    """A restart between two calls goes unnoticed: the ping detects the dead connection."""
    (replica, _) = replicas
    key, principal = await add(replica.store)
    assert await replica.verify(key) == principal
    postgres.stop()
    postgres.start()
    replica.clock.time += 100
    assert await replica.verify(key) == principal
    assert not replica.cache.unavailable


async def test_a_server_started_before_the_database(url, postgres):
    postgres.stop()
    replica = Replica(KeyStore(url), timeout=20.0)
    await replica.keys.start()
    assert await replica.verify(new_key()[0]) == UNAVAILABLE
    postgres.start()
    await replica.recovered()
    key, principal = await add(replica.store)
    assert await replica.verify(key) == principal
    await replica.keys.close()
    await replica.store.close()


async def test_a_server_without_the_right_to_change_tables(url, postgres):
    owner = KeyStore(url)
    await owner.migrate()
    key, principal = await add(owner)
    name = url.rpartition("/")[2]
    postgres.sql(
        "CREATE ROLE server LOGIN PASSWORD 'pw'; GRANT SELECT, UPDATE (last_used) ON api_keys TO server;"
        "GRANT SELECT ON api_keys_version TO server",
        name,
    )
    store = KeyStore(f"postgresql://server:pw@127.0.0.1:{postgres.port}/{name}")
    replica = Replica(store, timeout=20.0)
    await replica.keys.start()
    assert await replica.verify(key) == principal
    await replica.keys.close()
    with pytest.raises(KeyStoreError, match="permission denied"):
        await store.revoke(id_of(principal), NOW)
    assert (await owner.find(id_of(principal))).last_used == NOW
    await store.close()
    await owner.close()
    postgres.sql("DROP OWNED BY server; DROP ROLE server", name)


async def test_urls_as_libpq_has_them_are_accepted(url, postgres):
    """Another name of the scheme, options after a question mark, a socket."""
    name = url.rpartition("/")[2]
    for form in (
        url.replace("+asyncpg", "") + "?sslmode=prefer",
        postgres.socket_url(name),
    ):
        store = KeyStore(form)
        await store.migrate()
        assert list(await store.list()) == []
        await store.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url: url.replace(pg.QUOTED_PASSWORD, "hunter2"), "password authentication failed"),
        (lambda url: url + "none", "does not exist"),
        (lambda url: url + "?sslmode=require", "SSL"),
        (lambda url: url + "?sslmode=nonsense", "ClientConfigurationError"),
    ],
)
async def test_messages_about_a_url_do_not_contain_its_password(url, change, reason, caplog):
    caplog.set_level(logging.DEBUG)
    store = KeyStore(change(url))
    with pytest.raises(KeyStoreError) as raised:
        await store.migrate()
    assert reason in str(raised.value)
    for secret in ("hunter2", pg.PASSWORD, pg.QUOTED_PASSWORD):
        assert secret not in str(raised.value)
        assert secret not in caplog.text
    assert raised.value.__cause__ is None


async def test_a_migration_waits_for_another(url, postgres):
    """A lock held by another session blocks the migration until it is released."""
    name = url.rpartition("/")[2]
    holder = await asyncpg.connect(url.replace("+asyncpg", ""))
    await holder.execute("SELECT pg_advisory_lock($1)", migrate.ADVISORY_LOCK)
    store = KeyStore(url)
    migrating = asyncio.create_task(store.migrate())
    await waiting(holder, migrating, "advisory")
    assert postgres.sql("SELECT count(*) FROM pg_tables WHERE tablename = 'api_keys'", name) == "0"
    await holder.close()
    await migrating
    assert list(await store.list()) == []
    await store.close()
