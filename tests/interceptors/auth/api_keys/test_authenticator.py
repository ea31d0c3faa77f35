"""Who is let in with a key, for how long an answer holds, and what holds while the database is away."""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
import logging

import pytest

from interceptors.auth.api_keys import authenticator, cache, last_used
from interceptors.auth.api_keys import format as api_key
from interceptors.auth.api_keys.authenticator import KeyAuthenticator
from interceptors.auth.api_keys.store import KeyRecord, KeyStoreError
from interceptors.calls.principal import Principal, Rejected, Undecided

PEPPER = b"pepper of the tests, 32 characters"
NOW = 1_700_000_000.0
AWAY = Undecided("key_store_unavailable")


class Database:
    """Keys in a dict; away, silent or broken on demand."""

    def __init__(self) -> None:
        self.records: dict[str, KeyRecord] = {}
        self.looks: list[str] = []
        self.touched: list[dict[str, float]] = []
        self.migrated = 0
        self.fault: Exception | None = None
        self.asked = asyncio.Event()
        self.answering = asyncio.Event()
        self.answering.set()

    async def _answer(self) -> None:
        await self.answering.wait()
        if self.fault is not None:
            raise self.fault

    async def migrate(self) -> None:
        await self._answer()
        self.migrated += 1

    async def find(self, key_id: str) -> KeyRecord | None:
        if key_id:
            self.looks.append(key_id)
            self.asked.set()
        # What is read is what was there when it was asked for.
        found = self.records.get(key_id)
        await self._answer()
        return found

    async def asked_for(self, key_id: str, times: int = 1) -> None:
        while self.looks.count(key_id) < times:
            self.asked.clear()
            await self.asked.wait()

    async def touch(self, used) -> None:
        await self._answer()
        self.touched.append(dict(used))


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@dataclasses.dataclass
class Room:
    database: Database
    clock: Clock
    wall: Clock
    keys: KeyAuthenticator

    def add(self, prefix: str = "alk", pepper: bytes = PEPPER, **changes: object) -> tuple[str, str]:
        """A key that is stored: the whole of it and its id."""
        key = api_key.new(prefix)
        record = KeyRecord(
            key.id, api_key.digest(pepper, key), api_key.pepper_mark(pepper), "label", frozenset({"align"}), created=NOW - 100
        )
        self.database.records[key.id] = dataclasses.replace(record, **changes)
        return key.reveal(), key.id

    def revoke(self, key_id: str) -> None:
        self.database.records[key_id] = dataclasses.replace(self.database.records[key_id], revoked=NOW)

    async def settle(self) -> None:
        """What is under way beside the calls ends."""
        looks = self.keys._cache._looks
        while looks:
            await asyncio.wait(list(looks.values()))
            await asyncio.sleep(0)

    async def back(self) -> None:
        """The database is found again."""
        await self.keys._cache._return.wait()


@pytest.fixture
async def room(monkeypatch):
    monkeypatch.setattr(cache, "RETRY_EVERY", 0.001)
    monkeypatch.setattr(last_used, "BATCH", 0.0)
    database, clock, wall = Database(), Clock(), Clock()
    wall.time = NOW
    keys = KeyAuthenticator(database, PEPPER, prefix="alk", timeout=30.0, outage=3600.0, clock=clock, now=wall)
    await keys.start()
    yield Room(database, clock, wall, keys)
    database.fault = None
    database.answering.set()
    await keys.close()


def good(key_id: str, expires: float | None = None) -> Principal:
    return Principal(name=f"key:{key_id}", method="api_key", scopes=frozenset({"align"}), expires=expires)


def with_secret_of(key: str, other: str) -> str:
    """A sound key with the id of one and the secret of another."""
    one, two = api_key.parse(key, "alk"), api_key.parse(other, "alk")
    return api_key.ApiKey("alk", one.id, two.secret).reveal()


# Verdicts


async def test_a_good_key(room):
    key, key_id = room.add()
    assert await room.keys.verify(key) == good(key_id)


async def test_its_end_is_told(room):
    key, key_id = room.add(expires=NOW + 10)
    assert await room.keys.verify(key) == good(key_id, NOW + 10)


@pytest.mark.parametrize(
    "change", [lambda key: "", lambda key: key[:-1], lambda key: "Bearer " + key, lambda key: "other" + key[3:]]
)
async def test_malformed_without_the_database(room, change):
    key, _ = room.add()
    assert await room.keys.verify(change(key)) == Rejected("key_malformed")
    assert room.database.looks == []


async def test_unknown(room):
    assert await room.keys.verify(api_key.new("alk").reveal()) == Rejected("key_unknown")


async def test_a_wrong_secret(room):
    key, _ = room.add()
    other, _ = room.add()
    assert await room.keys.verify(with_secret_of(key, other)) == Rejected("key_secret")


async def test_a_digest_of_another_row_opens_nothing(room):
    key, key_id = room.add()
    _, other_id = room.add()
    room.database.records[other_id] = dataclasses.replace(
        room.database.records[other_id], digest=room.database.records[key_id].digest
    )
    moved = api_key.ApiKey("alk", other_id, api_key.parse(key, "alk").secret).reveal()
    assert await room.keys.verify(moved) == Rejected("key_secret")


async def test_revoked(room):
    key, key_id = room.add(revoked=NOW - 1)
    assert await room.keys.verify(key) == Rejected("key_revoked", principal=f"key:{key_id}")


async def test_revoked_by_a_machine_whose_clock_is_ahead(room):
    key, key_id = room.add(revoked=NOW + 3600)
    assert await room.keys.verify(key) == Rejected("key_revoked", principal=f"key:{key_id}")


async def test_expired(room):
    key, key_id = room.add(expires=NOW)
    assert await room.keys.verify(key) == Rejected("key_expired", principal=f"key:{key_id}", expired=True)


async def test_it_expires_to_the_second_whatever_is_remembered(room):
    key, key_id = room.add(expires=NOW + 1)
    assert await room.keys.verify(key) == good(key_id, NOW + 1)
    room.wall.time = NOW + 1
    assert await room.keys.verify(key) == Rejected("key_expired", principal=f"key:{key_id}", expired=True)


@pytest.mark.parametrize("changes", [{"revoked": NOW}, {"expires": NOW}])
async def test_without_the_secret_nobody_learns_what_became_of_a_key(room, changes):
    key, _ = room.add(**changes)
    other, _ = room.add()
    assert await room.keys.verify(with_secret_of(key, other)) == Rejected("key_secret")


async def test_revoked_comes_before_expired(room):
    key, key_id = room.add(revoked=NOW, expires=NOW)
    assert await room.keys.verify(key) == Rejected("key_revoked", principal=f"key:{key_id}")


async def test_an_unknown_id_costs_what_a_wrong_secret_does(room, monkeypatch):
    compared = []
    real = hmac.compare_digest

    def compare(left, right):
        compared.append((len(left), len(right)))
        return real(left, right)

    monkeypatch.setattr(authenticator.hmac, "compare_digest", compare)
    key, _ = room.add()
    await room.keys.verify(with_secret_of(key, room.add()[0]))
    await room.keys.verify(api_key.new("alk").reveal())
    assert compared == [(32, 32), (32, 32)]


async def test_another_pepper_is_told_to_the_operator_once(room, caplog):
    key, key_id = room.add(pepper=b"another pepper of 32 characters!")
    for _ in range(3):
        assert await room.keys.verify(key) == Rejected("key_secret")
    (line,) = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.ERROR]
    assert key_id in line
    assert "pepper" in line
    assert key not in line


async def test_a_wrong_secret_is_no_matter_for_the_log(room, caplog):
    key, _ = room.add()
    await room.keys.verify(with_secret_of(key, room.add()[0]))
    assert not [entry for entry in caplog.records if entry.levelno >= logging.WARNING]


# How long an answer holds


async def test_under_two_seconds_the_database_is_not_asked(room):
    key, key_id = room.add()
    for age in (0.0, 1.0, 1.99):
        room.clock.time = 1000.0 + age
        assert await room.keys.verify(key) == good(key_id)
        await room.settle()
    assert room.database.looks == [key_id]


async def test_from_two_seconds_it_is_asked_beside_the_call(room):
    key, key_id = room.add()
    await room.keys.verify(key)
    room.revoke(key_id)
    room.clock.time += 2.0
    assert await room.keys.verify(key) == good(key_id)
    await room.settle()
    assert room.database.looks == [key_id] * 2
    assert (await room.keys.verify(key)).check == "key_revoked"


async def test_from_four_and_a_half_the_call_waits_for_it(room):
    key, key_id = room.add()
    await room.keys.verify(key)
    room.revoke(key_id)
    room.clock.time += 4.5
    assert (await room.keys.verify(key)).check == "key_revoked"


async def test_the_age_counts_from_the_question(room):
    """A revocation written while the answer was on its way must not be missed for longer."""
    key, key_id = room.add()
    room.database.answering.clear()
    call = asyncio.create_task(room.keys.verify(key))
    await room.database.asked_for(key_id)
    room.revoke(key_id)
    room.clock.time += 1.9
    room.database.answering.set()
    assert await call == good(key_id)
    room.clock.time += 2.6
    assert (await room.keys.verify(key)).check == "key_revoked"


@pytest.mark.parametrize("step", [0.1, 0.7, 1.9, 2.0, 3.3, 4.4, 4.5])
async def test_no_revoked_key_lives_five_seconds(room, step):
    key, key_id = room.add()
    await room.keys.verify(key)
    room.clock.time += 0.05
    room.revoke(key_id)
    revoked = room.clock.time
    while isinstance(await room.keys.verify(key), Principal):
        assert room.clock.time - revoked < 4.5
        await room.settle()
        room.clock.time += step


async def test_many_calls_make_one_lookup(room):
    key, key_id = room.add()
    room.database.answering.clear()
    calls = [asyncio.create_task(room.keys.verify(key)) for _ in range(50)]
    await room.database.asked_for(key_id)
    room.database.answering.set()
    assert await asyncio.gather(*calls) == [good(key_id)] * 50
    room.clock.time += 3
    await asyncio.gather(*(room.keys.verify(key) for _ in range(50)))
    await room.settle()
    assert room.database.looks == [key_id] * 2


async def test_a_call_that_is_cancelled_takes_nobody_with_it(room):
    key, key_id = room.add()
    room.database.answering.clear()
    first, second = (asyncio.create_task(room.keys.verify(key)) for _ in range(2))
    await room.database.asked_for(key_id)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    room.database.answering.set()
    assert await second == good(key_id)
    assert first.cancelled()
    assert room.database.looks == [key_id]


async def test_an_id_that_is_none_is_remembered_for_two_seconds(room):
    key, key_id = room.add()
    hidden = room.database.records.pop(key_id)
    for _ in range(3):
        assert await room.keys.verify(key) == Rejected("key_unknown")
    assert room.database.looks == [key_id]
    room.database.records[key_id] = hidden
    room.clock.time += 2.0
    assert await room.keys.verify(key) == good(key_id)


async def test_a_key_whose_row_was_deleted(room):
    key, key_id = room.add()
    await room.keys.verify(key)
    del room.database.records[key_id]
    room.clock.time += 4.5
    assert await room.keys.verify(key) == Rejected("key_unknown")
    room.database.fault = KeyStoreError("away")
    room.clock.time += 2.0
    assert await room.keys.verify(key) == AWAY


async def test_what_is_remembered_is_bounded(room, monkeypatch):
    monkeypatch.setattr(cache, "ENTRIES", 3)
    known = [room.add() for _ in range(4)]
    for key, _ in known[:3]:
        await room.keys.verify(key)
    await room.keys.verify(known[0][0])  # used again: the second is the one to go
    await room.keys.verify(known[3][0])
    for _ in range(5):
        await room.keys.verify(api_key.new("alk").reveal())
    assert set(room.keys._cache._known) == {known[n][1] for n in (0, 2, 3)}
    assert len(room.keys._cache._absent) == 3


async def test_whoever_tries_ids_does_not_push_out_good_keys(room, monkeypatch):
    monkeypatch.setattr(cache, "ENTRIES", 3)
    key, key_id = room.add()
    await room.keys.verify(key)
    for _ in range(20):
        await room.keys.verify(api_key.new("alk").reveal())
    assert await room.keys.verify(key) == good(key_id)
    assert room.database.looks.count(key_id) == 1


async def test_lookups_for_unknown_ids_are_bounded(room, monkeypatch):
    monkeypatch.setattr(cache, "MAX_LOOKS", 2)
    key, key_id = room.add()
    await room.keys.verify(key)
    room.clock.time += 4.5
    room.database.answering.clear()
    tried = [asyncio.create_task(room.keys.verify(api_key.new("alk").reveal())) for _ in range(5)]
    known = asyncio.create_task(room.keys.verify(key))
    await room.database.asked_for(key_id, times=2)
    room.database.answering.set()
    assert (
        sorted(verdict.check for verdict in await asyncio.gather(*tried)) == ["key_store_unavailable"] * 3 + ["key_unknown"] * 2
    )
    assert await known == good(key_id)


# The database away


async def test_a_key_that_was_good_goes_on(room):
    key, key_id = room.add()
    await room.keys.verify(key)
    room.database.fault = KeyStoreError("away")
    for age in (3.0, 4.5, 100.0, 3600.0):
        room.clock.time = 1000.0 + age
        assert await room.keys.verify(key) == good(key_id)
        await room.settle()
    room.clock.time = 1000.0 + 3600.1
    assert await room.keys.verify(key) == AWAY


async def test_no_bridge_where_none_is_wanted():
    database, clock = Database(), Clock()
    keys = KeyAuthenticator(database, PEPPER, prefix="alk", timeout=30.0, outage=0.0, clock=clock, now=lambda: NOW)
    held = Room(database, clock, clock, keys)
    key, key_id = held.add()
    assert await keys.verify(key) == good(key_id)
    database.fault = KeyStoreError("away")
    clock.time += 4.5
    assert await keys.verify(key) == AWAY
    await keys.close()


async def test_look_ups_are_counted_by_whether_they_were_answered_from_memory(room):
    known, absent = room.add()[0], room.add()
    del room.database.records[absent[1]]
    remembered = room.keys.cache

    async def counted(key: str) -> tuple[int, int]:
        before = remembered.hits, remembered.misses
        await room.keys.verify(key)
        await room.settle()
        return remembered.hits - before[0], remembered.misses - before[1]

    hit, miss = (1, 0), (0, 1)
    assert [await counted(known) for _ in range(2)] == [miss, hit]
    assert [await counted(absent[0]) for _ in range(2)] == [miss, hit]
    assert await counted("malformed") == (0, 0)
    assert len(remembered) == 1
    room.clock.time += 3.0
    assert await counted(known) == hit  # asked for again beside the call
    room.clock.time += 4.5
    assert await counted(known) == miss
    assert not remembered.away
    room.database.fault = KeyStoreError("away")
    room.clock.time += 4.5
    assert await counted(known) == miss  # it was asked, in vain
    assert remembered.away
    assert await counted(known) == hit  # and is not any more
    assert await counted(absent[0]) == miss  # nobody knows
    room.database.fault = None
    await room.back()
    assert not remembered.away


async def test_what_was_never_seen_cannot_be_told(room):
    key, key_id = room.add()
    room.database.fault = KeyStoreError("away")
    assert await room.keys.verify(key) == AWAY
    room.database.fault = None
    await room.back()
    assert await room.keys.verify(key) == good(key_id)
    assert room.database.migrated == 1  # at the start, and not again


async def test_an_old_no_is_not_an_answer(room):
    key, key_id = room.add()
    record = room.database.records.pop(key_id)
    assert await room.keys.verify(key) == Rejected("key_unknown")
    room.database.records[key_id] = record
    room.database.fault = KeyStoreError("away")
    room.clock.time += 2
    assert await room.keys.verify(key) == AWAY


async def test_revoked_and_expired_stay_so(room):
    revoked, revoked_id = room.add(revoked=NOW)
    expired, expired_id = room.add(expires=NOW + 5)
    await room.keys.verify(revoked)
    await room.keys.verify(expired)
    room.database.fault = KeyStoreError("away")
    room.clock.time += 10_000
    room.wall.time += 5
    assert await room.keys.verify(revoked) == Rejected("key_revoked", principal=f"key:{revoked_id}")
    room.clock.time = 1100
    assert await room.keys.verify(expired) == Rejected("key_expired", principal=f"key:{expired_id}", expired=True)


async def test_a_wrong_secret_is_wrong_during_an_outage_too(room):
    key, _ = room.add()
    other, _ = room.add()
    await room.keys.verify(key)
    room.database.fault = KeyStoreError("away")
    room.clock.time += 100
    assert await room.keys.verify(with_secret_of(key, other)) == Rejected("key_secret")


async def test_a_silent_database_is_waited_for_once(room, monkeypatch):
    monkeypatch.setattr(room.keys._cache, "_timeout", 0.01)
    key, key_id = room.add()
    other, _ = room.add()
    await room.keys.verify(key)
    room.clock.time += 4.5
    room.database.answering.clear()
    waits = []
    wait = asyncio.wait

    async def counted(*arguments, **named):
        waits.append(named)
        return await wait(*arguments, **named)

    monkeypatch.setattr(asyncio, "wait", counted)
    assert await room.keys.verify(key) == good(key_id)
    for _ in range(5):
        assert await room.keys.verify(key) == good(key_id)
        assert await room.keys.verify(other) == AWAY
    assert waits == [{"timeout": 0.01}]
    assert room.database.looks == [key_id] * 2


async def test_a_late_answer_counts(room, monkeypatch):
    """The call stopped waiting, the lookup did not."""
    monkeypatch.setattr(room.keys._cache, "_timeout", 0.01)
    key, key_id = room.add()
    await room.keys.verify(key)
    room.revoke(key_id)
    room.clock.time += 4.5
    room.database.answering.clear()
    assert await room.keys.verify(key) == good(key_id)
    room.database.answering.set()
    await room.settle()
    assert (await room.keys.verify(key)).check == "key_revoked"


async def test_revoked_during_an_outage_is_refused_when_it_is_over(room):
    key, key_id = room.add()
    await room.keys.verify(key)
    room.database.fault = KeyStoreError("away")
    room.clock.time += 100
    assert await room.keys.verify(key) == good(key_id)
    room.revoke(key_id)
    room.database.fault = None
    await room.back()
    assert (await room.keys.verify(key)).check == "key_revoked"


async def test_an_outage_is_told_once_and_its_end_too(room, caplog):
    caplog.set_level(logging.INFO)
    room.database.fault = KeyStoreError("Connection refused")
    for key, _ in [room.add() for _ in range(5)]:
        await room.keys.verify(key)
    room.database.fault = None
    await room.back()
    lost, found = [entry.getMessage() for entry in caplog.records if entry.name == "interceptors.auth.keys.cache"]
    assert "Connection refused" in lost
    assert "again" in found


async def test_a_bug_lets_nobody_in_and_does_not_escape(room, caplog):
    key, _ = room.add()
    room.database.fault = ZeroDivisionError("a bug")
    assert await room.keys.verify(key) == AWAY
    assert "ZeroDivisionError" in caplog.text


async def test_a_start_without_the_database(caplog, monkeypatch):
    monkeypatch.setattr(cache, "RETRY_EVERY", 0.001)
    database = Database()
    database.fault = KeyStoreError("Connection refused")
    keys = KeyAuthenticator(database, PEPPER, prefix="alk", timeout=30.0, outage=60.0, now=lambda: NOW)
    held = Room(database, Clock(), Clock(), keys)
    await keys.start()
    key, key_id = held.add()
    assert await keys.verify(key) == AWAY
    database.fault = None
    await held.back()
    assert database.migrated == 1
    assert await keys.verify(key) == good(key_id)
    await keys.close()


async def test_a_start_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(cache, "START_LIMIT", 0.01)
    database = Database()
    database.answering.clear()
    keys = KeyAuthenticator(database, PEPPER, prefix="alk", timeout=30.0, outage=60.0)
    await keys.start()
    assert await keys.verify(api_key.new("alk").reveal()) == AWAY
    await keys.close()


# When it was last used


async def written(room) -> list[dict[str, float]]:
    await room.keys._last_used._writer.wait()
    return room.database.touched


async def test_use_is_noted(room):
    key, key_id = room.add()
    await room.keys.verify(key)
    assert await written(room) == [{key_id: NOW}]


async def test_at_most_once_a_minute(room):
    key, key_id = room.add()
    for second in (0, 1, 30, 59.9, 60, 61, 119, 121):
        room.wall.time = NOW + second
        room.clock.time = 1000 + second
        await room.keys.verify(key)
        await written(room)
        await room.settle()
    assert [batch[key_id] - NOW for batch in room.database.touched] == [0, 60, 121]


async def test_what_another_server_wrote_counts(room):
    key, _ = room.add(last_used=NOW - 59)
    await room.keys.verify(key)
    await room.keys.close()
    assert room.database.touched == []


async def test_keys_are_written_together(room):
    keys = [room.add() for _ in range(5)]
    await asyncio.gather(*(room.keys.verify(key) for key, _ in keys))
    assert await written(room) == [dict.fromkeys((key_id for _, key_id in keys), NOW)]


async def test_only_use_counts(room):
    revoked, _ = room.add(revoked=NOW)
    expired, _ = room.add(expires=NOW)
    key, _ = room.add()
    for sent in (revoked, expired, with_secret_of(key, revoked)):
        await room.keys.verify(sent)
    await room.keys.close()
    assert room.database.touched == []


async def test_a_write_that_fails_fails_no_call_and_is_made_up_for(room):
    key, key_id = room.add()
    other, other_id = room.add()
    await room.keys.verify(key)
    room.database.fault = KeyStoreError("away")
    assert await written(room) == []
    assert await room.keys.verify(key) == good(key_id)
    room.database.fault = None
    await room.keys.verify(other)
    assert await written(room) == [{key_id: NOW, other_id: NOW}]


async def test_a_bug_in_writing_stays_inside(room, caplog):
    key, _ = room.add()
    await room.keys.verify(key)
    room.database.fault = ZeroDivisionError("a bug")
    await written(room)
    assert "ZeroDivisionError" in caplog.text


async def test_the_end_writes_what_is_pending(room, monkeypatch):
    monkeypatch.setattr(last_used, "BATCH", 3600.0)
    key, key_id = room.add()
    await room.keys.verify(key)
    await room.keys.close()
    await room.keys.close()
    assert room.database.touched == [{key_id: NOW}]


async def test_an_end_without_the_database(room, monkeypatch):
    monkeypatch.setattr(last_used, "WRITE_LIMIT", 0.01)
    monkeypatch.setattr(last_used, "BATCH", 3600.0)
    key, _ = room.add()
    await room.keys.verify(key)
    room.database.answering.clear()
    await room.keys.close()
