"""Classes set at run time: they apply on every replica, take precedence over the file, and outlast an outage of Redis."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from interceptors.calls.principal import Principal
from interceptors.calls.security_event import Event, Record
from interceptors.quota import overrides as module
from interceptors.quota.classes_text import parse
from interceptors.quota.overrides import Overrides, OverrideStore, TooManyError, known
from interceptors.quota.stores.base import Bucket, Charge, StoreUnavailableError
from interceptors.quota.stores.redis_store import RedisStore
from tests.kit import redis_server as rs
from tests.kit.redis_server import PASSWORD
from tests.kit.waiting import eventually

redis = rs.redis
redis_server = rs.redis_server

NEVER = 3600.0
WAIT_TIMEOUT = 30.0
FILE = """
[classes.default]
requests_per_second = 1
[classes.batch]
requests_per_second = 5
[classes.gold]
requests_per_second = 50
[principals]
"key:3fb1c9" = "batch"
"jwt:https://idp.example.org#*" = "batch"
"""
OLDER_FILE = FILE.replace("[classes.gold]\nrequests_per_second = 50\n", "")


def classes(text: str = FILE):
    return parse(text, "quotas.toml")


def class_of(current, name: str) -> str:
    return current.of(Principal(name, "jwt")).name


@pytest.fixture
async def store(redis) -> AsyncIterator[OverrideStore]:
    """What the command line has."""
    made = OverrideStore(redis.url, prefix=redis.prefix(), timeout=WAIT_TIMEOUT)
    yield made
    await made.close()


@asynccontextmanager
async def replica(redis, store, text: str = FILE, *, record: Record = lambda event: None, every: float = NEVER):
    """The part of one server, with a connection of its own."""
    file = classes(text)
    part = Overrides(
        OverrideStore(redis.url, prefix=store.prefix, timeout=WAIT_TIMEOUT),
        lambda: file,
        record,
        every=every,
    )
    await part.start()
    try:
        yield part
    finally:
        await part.close()


# The classes


def test_an_override_replaces_the_rule_of_the_file_and_nothing_else():
    file = classes()
    merged = file.with_overrides({"key:3fb1c9": "gold", "key:*": "gold"})
    assert class_of(merged, "key:3fb1c9") == "gold"
    assert class_of(merged, "key:another") == "gold"
    assert class_of(merged, "jwt:https://idp.example.org#a") == "batch"
    assert class_of(merged, "mtls:a") == "default"
    assert class_of(file, "key:3fb1c9") == "batch"
    assert merged.changes_since(file) == "principals: +key:* (gold), key:3fb1c9 (batch -> gold)"


def test_an_exact_name_takes_precedence_over_a_pattern_whichever_is_an_override():
    file = classes()
    assert class_of(file.with_overrides({"key:*": "gold"}), "key:3fb1c9") == "batch"
    assert class_of(file.with_overrides({"jwt:https://idp.example.org#a": "gold"}), "jwt:https://idp.example.org#a") == "gold"
    assert class_of(file.with_overrides({"jwt:https://idp.example.org#a": "gold"}), "jwt:https://idp.example.org#b") == "batch"


def test_of_patterns_of_one_length_an_override_takes_precedence():
    file = classes(FILE + '"mtls:*.example.org" = "batch"\n')
    assert class_of(file.with_overrides({"mtls:a.*.example.org": "gold"}), "mtls:a.b.example.org") == "gold"
    same = classes(FILE + '"mtls:a.*.org" = "batch"\n')
    assert class_of(same, "mtls:a.b.org") == "batch"
    assert class_of(same.with_overrides({"mtls:*.b.org": "gold"}), "mtls:a.b.org") == "gold"


def test_the_class_of_a_subject():
    file = classes(FILE + "[classes.anonymous]\nrequests_per_second = 1\n")
    assert file.of_subject("key:3fb1c9").name == "batch"
    assert file.of_subject("peer:127.0.0.1").name == "anonymous"
    assert classes().of_subject("peer:127.0.0.1").name == "default"


@pytest.mark.parametrize("name", ["*", "key", "key:", "alice", "mtls:spiffe://example.org*", "key:a\nb", "key:" + "a" * 3000])
def test_an_invalid_name_is_ignored(name):
    assert known({name: "gold", "key:a": "gold"}, classes()) == {"key:a": "gold"}
    assert module.name_fault(name) is not None


# The store


async def test_the_store_returns_the_class_that_a_name_had_before(store):
    assert await store.read() == {}
    assert await store.put("key:b", "gold") is None
    assert await store.put("key:b", "batch") == "gold"
    assert await store.put("jwt:https://idp#é *", "gold") is None
    assert list((await store.read()).items()) == [("jwt:https://idp#é *", "gold"), ("key:b", "batch")]
    assert await store.remove("key:b") == "batch"
    assert await store.remove("key:b") is None
    assert await store.read() == {"jwt:https://idp#é *": "gold"}


async def test_the_number_of_names_is_bounded_and_known_ones_can_change(store, monkeypatch):
    monkeypatch.setattr(module, "MAX_NAMES", 2)
    await store.put("key:1", "gold")
    await store.put("key:2", "gold")
    with pytest.raises(TooManyError, match="2 names"):
        await store.put("key:3", "gold")
    assert await store.put("key:2", "batch") == "gold"
    await store.remove("key:1")
    assert await store.put("key:3", "gold") is None


async def test_overrides_are_not_a_subject_and_survive_a_reset(redis, store):
    prefix = store.prefix
    counted = RedisStore(redis.url, prefix=prefix, timeout=WAIT_TIMEOUT)
    await store.put("key:1", "gold")
    await counted.take("key:1", [Charge(Bucket("requests", 1, 5), 1)], (), "a")
    assert list(await counted.subjects(10)) == ["key:1"]
    await counted.reset("key:1")
    assert await store.read() == {"key:1": "gold"}
    await counted.close()


async def test_the_password_is_not_in_errors_or_logs(redis, store, caplog):
    assert PASSWORD not in store.place
    assert f"127.0.0.1:{redis.port}" in store.place
    redis.kill()
    with pytest.raises(StoreUnavailableError) as raised:
        await store.read()
    async with replica(redis, store):
        pass
    for text in (str(raised.value), caplog.text):
        assert PASSWORD not in text
        assert redis.url not in text


# A replica


async def test_an_override_applies_on_every_replica_and_is_recorded_once_by_each(redis, store):
    events = [], []
    async with (
        replica(redis, store, record=events[0].append, every=0.01) as one,
        replica(redis, store, record=events[1].append, every=0.01) as other,
    ):
        await store.put("key:new", "gold")
        await eventually(lambda: class_of(one.current, "key:new") == class_of(other.current, "key:new") == "gold")
        await store.remove("key:new")
        await eventually(lambda: class_of(one.current, "key:new") == class_of(other.current, "key:new") == "default")
    for of_replica in events:
        assert [event.event for event in of_replica] == [Event.QUOTA_CHANGED] * 2
        assert "principals: +key:new (gold)" in of_replica[0].detail
        assert "principals: -key:new (gold)" in of_replica[1].detail
        assert PASSWORD not in str(of_replica)


async def test_a_reading_without_changes_leaves_no_record_and_keeps_the_classes(redis, store):
    events = []
    await store.put("key:new", "gold")
    async with replica(redis, store, record=events.append) as one:
        before = one.current
        await one.refresh()
        assert one.current is before
        await store.put("key:other", "nosuch")
        await one.refresh()
    assert len(events) == 1


async def test_overrides_apply_to_the_first_call(redis, store):
    await store.put("key:new", "gold")
    async with replica(redis, store) as one:
        assert class_of(one.current, "key:new") == "gold"


async def test_overrides_outlast_a_change_of_the_file(redis, store):
    await store.put("key:new", "gold")
    versions = [classes()]
    part = Overrides(
        OverrideStore(redis.url, prefix=store.prefix, timeout=WAIT_TIMEOUT), lambda: versions[-1], lambda event: None
    )
    await part.start()
    versions.append(classes(FILE.replace("requests_per_second = 50", "requests_per_second = 70")))
    assert part.current.of(Principal("key:new", "api_key")).requests.rate == 70
    assert part.current is part.current
    await part.close()


async def test_a_class_that_a_replica_does_not_have_is_ignored_and_logged_once(redis, store, caplog):
    await store.put("key:new", "gold")
    await store.put("key:other", "batch")
    redis.command("HSET", f"{store.prefix}:classes", "robot", "batch")
    versions = [classes(OLDER_FILE)]
    part = Overrides(
        OverrideStore(redis.url, prefix=store.prefix, timeout=WAIT_TIMEOUT), lambda: versions[-1], lambda event: None
    )
    await part.start()
    for _ in range(3):
        await part.refresh()
        assert class_of(part.current, "key:new") == "default"
        assert class_of(part.current, "key:other") == "batch"
    await store.put("key:third", "batch")
    await part.refresh()
    lines = [line.getMessage() for line in caplog.records if "which is ignored" in line.getMessage()]
    assert len(lines) == 2
    assert "'key:new'" in lines[0]
    assert "no such class" in lines[0]
    assert "'robot'" in lines[1]
    # Until its file is as new as that of the others.
    versions.append(classes())
    assert class_of(part.current, "key:new") == "gold"
    await part.close()


async def test_while_redis_is_unavailable_the_overrides_read_last_apply(redis, store, caplog):
    caplog.set_level(logging.INFO)
    await store.put("key:new", "gold")
    async with replica(redis, store) as one:
        redis.kill()
        for _ in range(3):
            await one.refresh()
            assert class_of(one.current, "key:new") == "gold"
        redis.start()  # empty: the overrides are lost
        await one.refresh()
        assert class_of(one.current, "key:new") == "default"
    lines = [line.getMessage() for line in caplog.records if "run time" in line.getMessage()]
    assert len(lines) == 2
    assert "cannot be read" in lines[0]
    assert "again" in lines[1]


async def test_a_replica_starts_without_redis_and_reads_the_overrides_later(redis, store):
    redis.kill()
    async with replica(redis, store, every=0.01) as one:
        assert class_of(one.current, "key:3fb1c9") == "batch"
        redis.start()
        await store.put("key:3fb1c9", "gold")
        await eventually(lambda: class_of(one.current, "key:3fb1c9") == "gold")


async def test_readings_go_on_after_one_that_fails(redis, store, caplog):
    async with replica(redis, store, every=0.01) as one:
        redis.command("SET", f"{store.prefix}:classes", "not a hash")
        await eventually(lambda: "cannot be read" in caplog.text)
        redis.command("DEL", f"{store.prefix}:classes")
        await store.put("key:new", "gold")
        await eventually(lambda: class_of(one.current, "key:new") == "gold")


async def test_closing_twice_does_no_harm(redis, store):
    async with replica(redis, store) as one:
        await one.close()
