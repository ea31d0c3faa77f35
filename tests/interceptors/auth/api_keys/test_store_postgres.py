"""Several servers on one real PostgreSQL: revocation, outages and their end. Ages by a clock of the test's own."""

from __future__ import annotations

import asyncio
import dataclasses
import logging

import asyncpg
import pytest

from interceptors.auth.api_keys import cache, migrate
from interceptors.auth.api_keys import format as api_key
from interceptors.auth.api_keys.authenticator import KeyAuthenticator
from interceptors.auth.api_keys.store import KeyRecord, KeyStore, KeyStoreError
from interceptors.calls.principal import Principal, Rejected, Undecided
from tests.kit import postgres as pg

postgres_server = pg.postgres_server
postgres = pg.postgres

PEPPER = b"pepper of the tests, 32 characters"
NOW = 1_700_000_000.0
AWAY = Undecided("key_store_unavailable")


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@dataclasses.dataclass
class Replica:
    """One server's view."""

    store: KeyStore
    keys: KeyAuthenticator
    clock: Clock

    async def settle(self) -> None:
        looks = self.keys._cache._looks
        while looks:
            await asyncio.wait(list(looks.values()))
            await asyncio.sleep(0)

    async def back(self) -> None:
        if self.keys._cache._return is not None:
            await self.keys._cache._return


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(cache, "RETRY_EVERY", 0.02)


@pytest.fixture
def url(postgres):
    return postgres.database()


@pytest.fixture
async def replicas(url):
    """Two of them. Patient, so that a busy machine does not pass for an outage."""
    made = []
    for _ in range(2):
        store, clock = KeyStore(url, timeout=20.0), Clock()
        keys = KeyAuthenticator(store, PEPPER, prefix="alk", timeout=20.0, outage=3600.0, clock=clock, now=lambda: NOW)
        await keys.start()
        made.append(Replica(store, keys, clock))
    yield made
    for replica in made:
        await replica.keys.close()
        await replica.store.close()


async def add(store: KeyStore) -> tuple[str, Principal]:
    key = api_key.new("alk")
    scopes = frozenset({"align"})
    await store.add(
        KeyRecord(key.id, api_key.digest(PEPPER, key), api_key.pepper_mark(PEPPER), "label", scopes, created=NOW - 100)
    )
    return key.reveal(), Principal(f"key:{key.id}", "api_key", scopes)


def id_of(principal: Principal) -> str:
    return principal.name.removeprefix("key:")


async def test_revoked_through_one_is_refused_by_the_other(replicas):
    one, other = replicas
    key, principal = await add(one.store)
    assert await other.keys.authenticate(key) == principal
    assert await one.store.revoke(id_of(principal), NOW)
    # Within the rule: used as it is, used and refreshed, refused.
    other.clock.time += 1.99
    assert await other.keys.authenticate(key) == principal
    other.clock.time += 0.01
    assert await other.keys.authenticate(key) == principal
    await other.settle()
    assert await other.keys.authenticate(key) == Rejected("key_revoked", principal=principal.name)


async def test_revoked_while_nobody_called(replicas):
    one, other = replicas
    key, principal = await add(one.store)
    assert await other.keys.authenticate(key) == principal
    assert await one.store.revoke(id_of(principal), NOW)
    other.clock.time += 4.5
    assert await other.keys.authenticate(key) == Rejected("key_revoked", principal=principal.name)


async def test_an_overlap_reaches_the_other(replicas):
    one, other = replicas
    key, principal = await add(one.store)
    assert await other.keys.authenticate(key) == principal
    assert await one.store.expire(id_of(principal), NOW + 60)
    other.clock.time += 4.5
    assert await other.keys.authenticate(key) == dataclasses.replace(principal, expires=NOW + 60)


async def test_both_note_use_without_standing_in_each_others_way(replicas):
    one, other = replicas
    keys = [await add(one.store) for _ in range(20)]
    await asyncio.gather(*(replica.keys.authenticate(key) for replica in replicas for key, _ in keys))
    await asyncio.gather(one.keys.close(), other.keys.close())
    assert {record.last_used for record in await one.store.list()} == {NOW}


async def test_rows_are_locked_in_one_order(replicas, url):
    """Two servers that write the same keys in opposite orders would each wait for the other."""
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
    """Until somebody waits for a lock of that kind."""
    async with asyncio.timeout(60):
        while await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = $1 AND NOT granted", kind) == 0:
            assert not task.done()
            await asyncio.sleep(0.01)


async def outage(replica: Replica, known: list[tuple[str, Principal]], unknown: str) -> None:
    """Every key that was seen goes on, one that was not cannot be told."""
    replica.clock.time += 100
    for key, principal in known * 3:
        assert await replica.keys.authenticate(key) == principal
    assert await replica.keys.authenticate(unknown) == AWAY


async def test_stopped_and_started_again(replicas, postgres, caplog):
    one, other = replicas
    known = [await add(one.store) for _ in range(10)]
    unknown, principal = await add(one.store)
    for key, caller in known:
        assert await one.keys.authenticate(key) == caller
        assert await other.keys.authenticate(key) == caller
    postgres.stop()
    for replica in replicas:
        await outage(replica, known, unknown)
    with pytest.raises(KeyStoreError, match=r"refused|Connect call failed"):
        await one.store.list()
    postgres.start()
    for replica in replicas:
        await replica.back()
        assert await replica.keys.authenticate(unknown) == principal
    assert await one.store.revoke(id_of(known[0][1]), NOW)
    assert (await other.keys.authenticate(known[0][0])).check == "key_revoked"
    assert pg.PASSWORD not in caplog.text


async def test_silent_and_back(replicas, postgres, monkeypatch):
    (replica, _) = replicas
    known = [await add(replica.store) for _ in range(10)]
    unknown, principal = await add(replica.store)
    for key, caller in known:
        assert await replica.keys.authenticate(key) == caller
    monkeypatch.setattr(replica.keys._cache, "_timeout", 0.05)
    monkeypatch.setattr(cache, "LOOK_LIMIT", 0.2)
    postgres.pause()
    await outage(replica, known, unknown)
    await replica.settle()
    monkeypatch.setattr(replica.keys._cache, "_timeout", 20.0)
    monkeypatch.setattr(cache, "LOOK_LIMIT", 20.0)
    postgres.resume()
    await replica.back()
    assert await replica.keys.authenticate(unknown) == principal


async def test_connections_cut_while_idle(replicas, postgres, url):
    """A restart between two calls is not even seen: the ping finds the dead connection."""
    (replica, _) = replicas
    key, principal = await add(replica.store)
    assert await replica.keys.authenticate(key) == principal
    postgres.stop()
    postgres.start()
    replica.clock.time += 100
    assert await replica.keys.authenticate(key) == principal
    assert replica.keys._cache._return is None


async def test_a_start_before_the_database(url, postgres, monkeypatch):
    postgres.stop()
    store = KeyStore(url)
    keys = KeyAuthenticator(store, PEPPER, prefix="alk", timeout=20.0, outage=60.0, now=lambda: NOW)
    replica = Replica(store, keys, Clock())
    await keys.start()
    assert await keys.authenticate(api_key.new("alk").reveal()) == AWAY
    postgres.start()
    await replica.back()
    key, principal = await add(store)
    assert await keys.authenticate(key) == principal
    await keys.close()
    await store.close()


async def test_a_server_without_the_right_to_change_tables(url, postgres, monkeypatch):
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
    keys = KeyAuthenticator(store, PEPPER, prefix="alk", timeout=20.0, outage=60.0, now=lambda: NOW)
    await keys.start()
    assert await keys.authenticate(key) == principal
    await keys.close()
    with pytest.raises(KeyStoreError, match="permission denied"):
        await store.revoke(id_of(principal), NOW)
    assert (await owner.find(id_of(principal))).last_used == NOW
    await store.close()
    await owner.close()
    postgres.sql("DROP OWNED BY server; DROP ROLE server", name)


async def test_the_library_urls_are_taken(url, postgres):
    """As libpq has them: another name of the scheme, options after a question mark, a socket."""
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
    ("change", "told"),
    [
        (lambda url: url.replace(pg._QUOTED_PASSWORD, "hunter2"), "password authentication failed"),
        (lambda url: url + "none", "does not exist"),
        (lambda url: url + "?sslmode=require", "SSL"),
        (lambda url: url + "?sslmode=nonsense", "ClientConfigurationError"),
    ],
)
async def test_faults_of_the_url_are_told_without_it(url, change, told, caplog):
    caplog.set_level(logging.DEBUG)
    store = KeyStore(change(url))
    with pytest.raises(KeyStoreError) as raised:
        await store.migrate()
    assert told in str(raised.value)
    for secret in ("hunter2", pg.PASSWORD, pg._QUOTED_PASSWORD):
        assert secret not in str(raised.value)
        assert secret not in caplog.text
    assert raised.value.__cause__ is None


async def test_a_migration_waits_for_another(url, postgres):
    """Held by a session elsewhere, the lock keeps everybody out until it is free."""
    name = url.rpartition("/")[2]
    holder = await asyncpg.connect(url.replace("+asyncpg", ""))
    await holder.execute("SELECT pg_advisory_lock($1)", migrate._ADVISORY_LOCK)
    store = KeyStore(url)
    migrating = asyncio.create_task(store.migrate())
    await waiting(holder, migrating, "advisory")
    assert postgres.sql("SELECT count(*) FROM pg_tables WHERE tablename = 'api_keys'", name) == "0"
    await holder.close()
    await migrating
    assert list(await store.list()) == []
    await store.close()
