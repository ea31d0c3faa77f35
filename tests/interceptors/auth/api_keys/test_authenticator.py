"""Verdicts on API keys, how long a record is cached, and what holds while the database is unavailable."""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
import logging
from typing import Any

import pytest

from interceptors.auth.api_keys import authenticator, cache, last_used
from interceptors.auth.api_keys import format as api_key
from interceptors.auth.api_keys.store import KeyRecord, KeyStoreError
from interceptors.calls.principal import Principal, Rejected
from tests.kit.key_replica import NOW, UNAVAILABLE, Replica, new_key
from tests.kit.waiting import eventually


class Database:
    """Keys in a dict; unavailable, silent or broken on demand."""

    def __init__(self) -> None:
        self.records: dict[str, KeyRecord] = {}
        self.lookups: list[str] = []
        self.touched: list[dict[str, float]] = []
        self.touches = 0
        self.closed = False
        self.migrated = 0
        self.fault: Exception | None = None
        self.asked = asyncio.Event()
        self.answering = asyncio.Event()
        self.answering.set()

    async def answer(self) -> None:
        await self.answering.wait()
        if self.fault is not None:
            raise self.fault

    async def migrate(self) -> None:
        await self.answer()
        self.migrated += 1

    async def find(self, key_id: str) -> KeyRecord | None:
        if key_id:
            self.lookups.append(key_id)
            self.asked.set()
        # The record as it was when the lookup began.
        found = self.records.get(key_id)
        await self.answer()
        return found

    async def asked_for(self, key_id: str, times: int = 1) -> None:
        while self.lookups.count(key_id) < times:
            self.asked.clear()
            await self.asked.wait()

    async def close(self) -> None:
        self.closed = True

    async def touch(self, used) -> None:
        self.touches += 1
        await self.answer()
        self.touched.append(dict(used))


class Server(Replica):
    """A replica with the fake database."""

    def __init__(self, *, timeout: float = 30.0, outage: float = 3600.0) -> None:
        self.database = Database()
        super().__init__(self.database, timeout=timeout, outage=outage)

    def add(self, **changes: Any) -> tuple[str, str]:
        """Store a new key; the complete key and its id."""
        key, record = new_key(**changes)
        self.database.records[record.id] = record
        return key, record.id

    def revoke(self, key_id: str) -> None:
        self.database.records[key_id] = dataclasses.replace(self.database.records[key_id], revoked=NOW)


@pytest.fixture
def max_entries():
    return cache.MAX_ENTRIES


@pytest.fixture
async def replica(monkeypatch, max_entries):
    monkeypatch.setattr(cache, "MAX_ENTRIES", max_entries)
    monkeypatch.setattr(cache, "RETRY_INTERVAL", 0.001)
    monkeypatch.setattr(last_used, "BATCH", 0.0)
    server = Server()
    await server.keys.start()
    yield server
    server.database.fault = None
    server.database.answering.set()
    await server.keys.close()


def good(key_id: str, expires: float | None = None) -> Principal:
    return Principal(name=f"key:{key_id}", method="api_key", scopes=frozenset({"align"}), expires=expires)


def with_secret_of(key: str, other: str) -> str:
    """A well-formed key with the id of one and the secret of another."""
    one, two = api_key.parse(key, "alk"), api_key.parse(other, "alk")
    return api_key.ApiKey("alk", one.id, two.secret).reveal()


# Verdicts


async def test_a_good_key(replica):
    key, key_id = replica.add()
    assert await replica.verify(key) == good(key_id)


async def test_a_verdict_has_the_expiry(replica):
    key, key_id = replica.add(expires=NOW + 10)
    assert await replica.verify(key) == good(key_id, NOW + 10)


@pytest.mark.parametrize(
    "change", [lambda key: "", lambda key: key[:-1], lambda key: "Bearer " + key, lambda key: "other" + key[3:]]
)
async def test_a_malformed_key_is_refused_without_the_database(replica, change):
    key, _ = replica.add()
    assert await replica.verify(change(key)) == Rejected("key_malformed")
    assert replica.database.lookups == []


async def test_an_unknown_key(replica):
    assert await replica.verify(api_key.new("alk").reveal()) == Rejected("key_unknown")


async def test_a_wrong_secret(replica):
    key, _ = replica.add()
    other, _ = replica.add()
    assert await replica.verify(with_secret_of(key, other)) == Rejected("key_secret")


async def test_a_digest_copied_from_another_row_is_useless(replica):
    key, key_id = replica.add()
    _, other_id = replica.add()
    replica.database.records[other_id] = dataclasses.replace(
        replica.database.records[other_id], digest=replica.database.records[key_id].digest
    )
    moved = api_key.ApiKey("alk", other_id, api_key.parse(key, "alk").secret).reveal()
    assert await replica.verify(moved) == Rejected("key_secret")


async def test_a_revoked_key(replica):
    key, key_id = replica.add(revoked=NOW - 1)
    assert await replica.verify(key) == Rejected("key_revoked", principal=f"key:{key_id}")


async def test_a_revocation_by_a_machine_whose_clock_is_ahead_counts(replica):
    key, key_id = replica.add(revoked=NOW + 3600)
    assert await replica.verify(key) == Rejected("key_revoked", principal=f"key:{key_id}")


async def test_an_expired_key(replica):
    key, key_id = replica.add(expires=NOW)
    assert await replica.verify(key) == Rejected("key_expired", principal=f"key:{key_id}", expired=True)


async def test_a_cached_key_expires_on_time(replica):
    key, key_id = replica.add(expires=NOW + 1)
    assert await replica.verify(key) == good(key_id, NOW + 1)
    replica.wall.time = NOW + 1
    assert await replica.verify(key) == Rejected("key_expired", principal=f"key:{key_id}", expired=True)


@pytest.mark.parametrize("changes", [{"revoked": NOW}, {"expires": NOW}])
async def test_without_the_secret_the_state_of_a_key_is_not_revealed(replica, changes):
    key, _ = replica.add(**changes)
    other, _ = replica.add()
    assert await replica.verify(with_secret_of(key, other)) == Rejected("key_secret")


async def test_revoked_comes_before_expired(replica):
    key, key_id = replica.add(revoked=NOW, expires=NOW)
    assert await replica.verify(key) == Rejected("key_revoked", principal=f"key:{key_id}")


async def test_an_unknown_id_takes_the_same_work_as_a_wrong_secret(replica, monkeypatch):
    compared = []
    real = hmac.compare_digest

    def compare(left, right):
        compared.append((len(left), len(right)))
        return real(left, right)

    monkeypatch.setattr(authenticator.hmac, "compare_digest", compare)
    key, _ = replica.add()
    await replica.verify(with_secret_of(key, replica.add()[0]))
    await replica.verify(api_key.new("alk").reveal())
    assert compared == [(32, 32), (32, 32)]


async def test_another_pepper_is_logged_once(replica, caplog):
    key, key_id = replica.add(pepper=b"another pepper of 32 characters!")
    for _ in range(3):
        assert await replica.verify(key) == Rejected("key_secret")
    (line,) = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.ERROR]
    assert key_id in line
    assert "pepper" in line
    assert key not in line


async def test_a_wrong_secret_is_not_logged(replica, caplog):
    key, _ = replica.add()
    await replica.verify(with_secret_of(key, replica.add()[0]))
    assert not [entry for entry in caplog.records if entry.levelno >= logging.WARNING]


# How long a record is cached


async def test_under_2_s_a_cached_record_is_used(replica):
    key, key_id = replica.add()
    for age in (0.0, 1.0, 1.99):
        replica.clock.time = 1000.0 + age
        assert await replica.verify(key) == good(key_id)
        await replica.settled()
    assert replica.database.lookups == [key_id]


async def test_from_2_s_a_record_is_refreshed_in_the_background(replica):
    key, key_id = replica.add()
    await replica.verify(key)
    replica.revoke(key_id)
    replica.clock.time += 2.0
    assert await replica.verify(key) == good(key_id)
    await replica.settled()
    assert replica.database.lookups == [key_id] * 2
    assert (await replica.verify(key)).check == "key_revoked"


async def test_from_4_5_s_the_call_waits_for_the_database(replica):
    key, key_id = replica.add()
    await replica.verify(key)
    replica.revoke(key_id)
    replica.clock.time += 4.5
    assert (await replica.verify(key)).check == "key_revoked"


async def test_the_age_of_a_record_counts_from_the_request(replica):
    """A revocation written while the answer was on its way must not be missed for longer."""
    key, key_id = replica.add()
    replica.database.answering.clear()
    call = asyncio.create_task(replica.verify(key))
    await replica.database.asked_for(key_id)
    replica.revoke(key_id)
    replica.clock.time += 1.9
    replica.database.answering.set()
    assert await call == good(key_id)
    replica.clock.time += 2.6
    assert (await replica.verify(key)).check == "key_revoked"


@pytest.mark.parametrize("step", [0.1, 0.7, 1.9, 2.0, 3.3, 4.4, 4.5])
async def test_a_revoked_key_is_refused_within_5_s(replica, step):
    key, key_id = replica.add()
    await replica.verify(key)
    replica.clock.time += 0.05
    replica.revoke(key_id)
    revoked = replica.clock.time
    while isinstance(await replica.verify(key), Principal):
        assert replica.clock.time - revoked < 4.5
        await replica.settled()
        replica.clock.time += step


async def test_many_calls_make_one_lookup(replica):
    key, key_id = replica.add()
    replica.database.answering.clear()
    calls = [asyncio.create_task(replica.verify(key)) for _ in range(50)]
    await replica.database.asked_for(key_id)
    replica.database.answering.set()
    assert await asyncio.gather(*calls) == [good(key_id)] * 50
    replica.clock.time += 3
    await asyncio.gather(*(replica.verify(key) for _ in range(50)))
    await replica.settled()
    assert replica.database.lookups == [key_id] * 2


async def test_a_cancelled_call_does_not_cancel_the_lookup(replica):
    key, key_id = replica.add()
    replica.database.answering.clear()
    first, second = (asyncio.create_task(replica.verify(key)) for _ in range(2))
    await replica.database.asked_for(key_id)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    replica.database.answering.set()
    assert await second == good(key_id)
    assert first.cancelled()
    assert replica.database.lookups == [key_id]


async def test_an_unknown_id_is_cached_for_2_s(replica):
    key, key_id = replica.add()
    hidden = replica.database.records.pop(key_id)
    for _ in range(3):
        assert await replica.verify(key) == Rejected("key_unknown")
    assert replica.database.lookups == [key_id]
    replica.database.records[key_id] = hidden
    replica.clock.time += 2.0
    assert await replica.verify(key) == good(key_id)


async def test_a_key_whose_row_was_deleted_is_unknown(replica):
    key, key_id = replica.add()
    await replica.verify(key)
    del replica.database.records[key_id]
    replica.clock.time += 4.5
    assert await replica.verify(key) == Rejected("key_unknown")
    replica.database.fault = KeyStoreError("unavailable")
    replica.clock.time += 2.0
    assert await replica.verify(key) == UNAVAILABLE


@pytest.mark.parametrize("max_entries", [3])
async def test_the_cache_is_bounded(replica):
    known = [replica.add() for _ in range(4)]
    for key, _ in known[:3]:
        await replica.verify(key)
    await replica.verify(known[0][0])  # used again, so the second is evicted
    await replica.verify(known[3][0])
    unknown = [api_key.new("alk") for _ in range(5)]
    for key in unknown:
        await replica.verify(key.reveal())
    assert len(replica.cache) == 3
    replica.database.lookups.clear()
    for key in (*(known[n][0] for n in (0, 2, 3)), *(key.reveal() for key in unknown[2:])):
        await replica.verify(key)
    assert replica.database.lookups == []
    for key in (unknown[1].reveal(), known[1][0]):
        await replica.verify(key)
    assert replica.database.lookups == [unknown[1].id, known[1][1]]


@pytest.mark.parametrize("max_entries", [3])
async def test_guessed_ids_do_not_evict_known_keys(replica):
    key, key_id = replica.add()
    await replica.verify(key)
    for _ in range(20):
        await replica.verify(api_key.new("alk").reveal())
    assert await replica.verify(key) == good(key_id)
    assert replica.database.lookups.count(key_id) == 1


async def test_lookups_for_unknown_ids_are_bounded(replica, monkeypatch):
    monkeypatch.setattr(cache, "MAX_LOOKUPS", 2)
    key, key_id = replica.add()
    await replica.verify(key)
    replica.clock.time += 4.5
    replica.database.answering.clear()
    tried = [asyncio.create_task(replica.verify(api_key.new("alk").reveal())) for _ in range(5)]
    known = asyncio.create_task(replica.verify(key))
    await replica.database.asked_for(key_id, times=2)
    replica.database.answering.set()
    assert (
        sorted(verdict.check for verdict in await asyncio.gather(*tried)) == ["key_store_unavailable"] * 3 + ["key_unknown"] * 2
    )
    assert await known == good(key_id)


# The database unavailable


async def test_a_known_key_stays_valid_for_the_outage(replica):
    key, key_id = replica.add()
    await replica.verify(key)
    replica.database.fault = KeyStoreError("unavailable")
    for age in (3.0, 4.5, 100.0, 3600.0):
        replica.clock.time = 1000.0 + age
        assert await replica.verify(key) == good(key_id)
        await replica.settled()
    replica.clock.time = 1000.0 + 3600.1
    assert await replica.verify(key) == UNAVAILABLE


async def test_with_an_outage_of_0_nothing_is_bridged():
    server = Server(outage=0.0)
    key, key_id = server.add()
    assert await server.verify(key) == good(key_id)
    server.database.fault = KeyStoreError("unavailable")
    server.clock.time += 4.5
    assert await server.verify(key) == UNAVAILABLE
    await server.keys.close()


async def test_finds_answered_from_the_cache_count_as_hits(replica):
    known, absent = replica.add()[0], replica.add()
    del replica.database.records[absent[1]]
    counts = replica.cache

    async def counted(key: str) -> tuple[int, int]:
        before = counts.hits, counts.misses
        await replica.verify(key)
        await replica.settled()
        return counts.hits - before[0], counts.misses - before[1]

    hit, miss = (1, 0), (0, 1)
    assert [await counted(known) for _ in range(2)] == [miss, hit]
    assert [await counted(absent[0]) for _ in range(2)] == [miss, hit]
    assert await counted("malformed") == (0, 0)
    assert len(counts) == 1
    replica.clock.time += 3.0
    assert await counted(known) == hit  # refreshed in the background
    replica.clock.time += 4.5
    assert await counted(known) == miss
    assert not counts.unavailable
    replica.database.fault = KeyStoreError("unavailable")
    replica.clock.time += 4.5
    assert await counted(known) == miss  # the database was asked, in vain
    assert counts.unavailable
    assert await counted(known) == hit  # and is not asked any more
    assert await counted(absent[0]) == miss  # neither cached nor available
    replica.database.fault = None
    await replica.recovered()
    assert not counts.unavailable


async def test_a_key_never_read_is_undecided(replica):
    key, key_id = replica.add()
    replica.database.fault = KeyStoreError("unavailable")
    assert await replica.verify(key) == UNAVAILABLE
    replica.database.fault = None
    await replica.recovered()
    assert await replica.verify(key) == good(key_id)
    assert replica.database.migrated == 1  # at the start only


async def test_an_unknown_id_is_undecided_after_2_s(replica):
    key, key_id = replica.add()
    record = replica.database.records.pop(key_id)
    assert await replica.verify(key) == Rejected("key_unknown")
    replica.database.records[key_id] = record
    replica.database.fault = KeyStoreError("unavailable")
    replica.clock.time += 2
    assert await replica.verify(key) == UNAVAILABLE


async def test_revoked_and_expired_keys_stay_refused(replica):
    revoked, revoked_id = replica.add(revoked=NOW)
    expired, expired_id = replica.add(expires=NOW + 5)
    await replica.verify(revoked)
    await replica.verify(expired)
    replica.database.fault = KeyStoreError("unavailable")
    replica.clock.time += 10_000
    replica.wall.time += 5
    assert await replica.verify(revoked) == Rejected("key_revoked", principal=f"key:{revoked_id}")
    replica.clock.time = 1100
    assert await replica.verify(expired) == Rejected("key_expired", principal=f"key:{expired_id}", expired=True)


async def test_a_wrong_secret_is_refused_during_an_outage_too(replica):
    key, _ = replica.add()
    other, _ = replica.add()
    await replica.verify(key)
    replica.database.fault = KeyStoreError("unavailable")
    replica.clock.time += 100
    assert await replica.verify(with_secret_of(key, other)) == Rejected("key_secret")


async def test_only_one_call_waits_for_a_silent_database(replica, monkeypatch):
    replica.cache.timeout = 0.01
    key, key_id = replica.add()
    other, _ = replica.add()
    await replica.verify(key)
    replica.clock.time += 4.5
    replica.database.answering.clear()
    waits = []
    wait = asyncio.wait

    async def counted(*arguments, **named):
        waits.append(named)
        return await wait(*arguments, **named)

    monkeypatch.setattr(asyncio, "wait", counted)
    assert await replica.verify(key) == good(key_id)
    for _ in range(5):
        assert await replica.verify(key) == good(key_id)
        assert await replica.verify(other) == UNAVAILABLE
    assert waits == [{"timeout": 0.01}]
    assert replica.database.lookups == [key_id] * 2


async def test_a_late_answer_is_cached(replica, monkeypatch):
    """The call stops waiting, the lookup does not."""
    replica.cache.timeout = 0.01
    key, key_id = replica.add()
    await replica.verify(key)
    replica.revoke(key_id)
    replica.clock.time += 4.5
    replica.database.answering.clear()
    assert await replica.verify(key) == good(key_id)
    replica.database.answering.set()
    await replica.settled()
    assert (await replica.verify(key)).check == "key_revoked"


async def test_a_key_revoked_during_an_outage_is_refused_after_it(replica):
    key, key_id = replica.add()
    await replica.verify(key)
    replica.database.fault = KeyStoreError("unavailable")
    replica.clock.time += 100
    assert await replica.verify(key) == good(key_id)
    replica.revoke(key_id)
    replica.database.fault = None
    await replica.recovered()
    assert (await replica.verify(key)).check == "key_revoked"


async def test_the_begin_and_the_end_of_an_outage_are_logged_once(replica, caplog):
    caplog.set_level(logging.INFO)
    replica.database.fault = KeyStoreError("Connection refused")
    for key, _ in [replica.add() for _ in range(5)]:
        await replica.verify(key)
    replica.database.fault = None
    await replica.recovered()
    lost, found = [entry.getMessage() for entry in caplog.records if entry.name == "interceptors.auth.keys.cache"]
    assert "Connection refused" in lost
    assert "available again" in found


async def test_a_bug_makes_a_key_undecided(replica, caplog):
    key, _ = replica.add()
    replica.database.fault = ZeroDivisionError("a bug")
    assert await replica.verify(key) == UNAVAILABLE
    assert "ZeroDivisionError" in caplog.text


async def test_a_start_while_the_database_is_unavailable(caplog, monkeypatch):
    monkeypatch.setattr(cache, "RETRY_INTERVAL", 0.001)
    server = Server()
    server.database.fault = KeyStoreError("Connection refused")
    await server.keys.start()
    key, key_id = server.add()
    assert await server.verify(key) == UNAVAILABLE
    server.database.fault = None
    await server.recovered()
    assert server.database.migrated == 1
    assert await server.verify(key) == good(key_id)
    await server.keys.close()


async def test_a_start_does_not_wait_forever(monkeypatch):
    monkeypatch.setattr(cache, "START_TIMEOUT", 0.01)
    server = Server()
    server.database.answering.clear()
    await server.keys.start()
    assert await server.verify(api_key.new("alk").reveal()) == UNAVAILABLE
    await server.keys.close()


# When a key was last used


async def written(replica, touches: int = 1) -> list[dict[str, float]]:
    """What was written after that many attempts."""
    await eventually(lambda: replica.database.touches == touches)
    return replica.database.touched


async def test_a_use_is_written(replica):
    key, key_id = replica.add()
    await replica.verify(key)
    assert await written(replica) == [{key_id: NOW}]


async def test_a_use_is_written_at_most_once_a_minute(replica):
    key, key_id = replica.add()
    due = (0, 60, 121)
    for second in (0, 1, 30, 59.9, 60, 61, 119, 121):
        replica.wall.time = NOW + second
        replica.clock.time = 1000 + second
        await replica.verify(key)
        await written(replica, sum(at <= second for at in due))
        await replica.settled()
    await replica.keys.close()
    assert [batch[key_id] - NOW for batch in replica.database.touched] == [*due]


async def test_a_use_written_by_another_server_counts(replica):
    key, _ = replica.add(last_used=NOW - 59)
    await replica.verify(key)
    await replica.keys.close()
    assert replica.database.touched == []


async def test_uses_are_written_in_batches(replica):
    keys = [replica.add() for _ in range(5)]
    await asyncio.gather(*(replica.verify(key) for key, _ in keys))
    assert await written(replica) == [dict.fromkeys((key_id for _, key_id in keys), NOW)]


async def test_a_refused_key_is_not_used(replica):
    revoked, _ = replica.add(revoked=NOW)
    expired, _ = replica.add(expires=NOW)
    key, _ = replica.add()
    for sent in (revoked, expired, with_secret_of(key, revoked)):
        await replica.verify(sent)
    await replica.keys.close()
    assert replica.database.touched == []


async def test_a_failed_write_fails_no_call_and_is_repeated(replica):
    key, key_id = replica.add()
    other, other_id = replica.add()
    await replica.verify(key)
    replica.database.fault = KeyStoreError("unavailable")
    assert await written(replica) == []
    assert await replica.verify(key) == good(key_id)
    replica.database.fault = None
    await replica.verify(other)
    assert await written(replica, 2) == [{key_id: NOW, other_id: NOW}]


async def test_a_bug_in_writing_is_logged(replica, caplog):
    key, _ = replica.add()
    await replica.verify(key)
    replica.database.fault = ZeroDivisionError("a bug")
    await eventually(lambda: "ZeroDivisionError" in caplog.text)


async def test_close_writes_what_is_pending(replica, monkeypatch):
    monkeypatch.setattr(last_used, "BATCH", 3600.0)
    key, key_id = replica.add()
    await replica.verify(key)
    await replica.keys.close()
    await replica.keys.close()
    assert replica.database.touched == [{key_id: NOW}]
    assert replica.database.closed


async def test_a_close_while_the_database_does_not_answer(replica, monkeypatch):
    monkeypatch.setattr(last_used, "WRITE_TIMEOUT", 0.01)
    monkeypatch.setattr(last_used, "BATCH", 3600.0)
    key, _ = replica.add()
    await replica.verify(key)
    replica.database.answering.clear()
    await replica.keys.close()
