"""All quota stores keep the same contract, alone and together. Clocks are scripted, Redis is real."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from aligner_svc.processes.counts import LinkedStore, SharedCounts
from aligner_svc.processes.duplex import Duplex
from interceptors.quota.stores.base import Bucket, Charge, Left, QuotaStore, Slots, Spent, StoreUnavailableError
from interceptors.quota.stores.memory import MemoryStore
from interceptors.quota.stores.redis_store import LEASE_SECONDS, RedisStore
from tests.kit import redis_server as rs
from tests.kit.redis_server import PASSWORD, RedisServer
from tests.kit.waiting import eventually, loop_turns

redis = rs.redis
redis_server = rs.redis_server

REQUESTS = Bucket("requests", rate=2.0, burst=5.0)
AUDIO = Bucket("audio", rate=10.0, burst=600.0)
CALLS, STREAMS = Slots("calls", 3), Slots("streams", 1)


class Clock:
    """Seconds as Redis counts them, set by hand."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "linked", "redis"])
async def store(request, clock) -> AsyncIterator[QuotaStore]:
    if request.param == "memory":
        yield MemoryStore(clock=clock)
        return
    if request.param == "linked":
        async with linked(SharedCounts(MemoryStore(clock=clock)), 1) as one:
            yield one
        return
    async with connected(request.getfixturevalue("redis"), clock) as one:
        yield one


@asynccontextmanager
async def linked(counts: SharedCounts, gateway: int) -> AsyncIterator[LinkedStore]:
    """A process's view of what its supervisor counts."""
    theirs, ours = socket.socketpair()
    supervisor, process = Duplex(counts.of(gateway)), Duplex({})
    await supervisor.open(theirs)
    await process.open(ours)
    try:
        yield LinkedStore(process)
    finally:
        process.close()
        supervisor.close()


@asynccontextmanager
async def connected(server: RedisServer, clock: Callable[[], float] | None, prefix: str = "") -> AsyncIterator[RedisStore]:
    # Ten seconds, because other tests may keep the machine busy.
    one = RedisStore(server.url, prefix=prefix or server.prefix(), timeout=10.0, clock=clock)
    try:
        yield one
    finally:
        await one.close()


def costs(requests: float | None = None, audio: float | None = None) -> list[Charge]:
    both = ((REQUESTS, requests), (AUDIO, audio))
    return [Charge(bucket, cost) for bucket, cost in both if cost is not None]


async def test_a_bucket_is_full_at_first_and_refills_at_its_rate(store, clock):
    for left in (4.0, 3.0, 2.0, 1.0, 0.0):
        assert await store.take("key:1", costs(1), (), "a") == Left({"requests": left})
    refused = await store.take("key:1", costs(1), (), "a")
    assert isinstance(refused, Spent)
    assert (refused.name, refused.kind, refused.remaining) == ("requests", "spent", 0.0)
    assert refused.retry_after == pytest.approx(0.5, abs=1e-4)
    clock.now += 0.5
    assert await store.take("key:1", costs(1), (), "a") == Left({"requests": 0.0})
    clock.now += 1e6
    assert await store.show("key:1", [REQUESTS], ()) == Left({"requests": 5.0})


async def test_subjects_do_not_share(store):
    await store.take("key:1", costs(5), [STREAMS], "a")
    assert await store.take("key:2", costs(5), [STREAMS], "b") == Left({"requests": 0.0, "streams": 0})


async def test_a_call_gets_all_that_it_needs_or_none_of_it(store):
    await store.take("key:1", costs(1, 600), [CALLS], "a")
    refused = await store.take("key:1", costs(1, 30), [CALLS], "b")
    assert isinstance(refused, Spent)
    assert (refused.name, refused.retry_after) == ("audio", pytest.approx(3.0, abs=1e-4))
    assert (await store.show("key:1", [REQUESTS, AUDIO], [CALLS])).remaining == {"requests": 4.0, "audio": 0.0, "calls": 2}


async def test_the_quota_with_the_longest_wait_is_named(store):
    await store.take("key:1", costs(5, 600), (), "a")
    assert (await store.take("key:1", costs(1, 1), (), "b")).name == "requests"
    assert (await store.take("key:1", costs(1, 100), (), "b")).name == "audio"


async def test_a_cost_above_the_burst_is_too_large_and_takes_nothing(store):
    assert await store.take("key:1", costs(1, 600.5), [CALLS], "a") == Spent("audio", 600.0, None, "too_large")
    assert (await store.show("key:1", [REQUESTS, AUDIO], [CALLS])).remaining == {"requests": 5.0, "audio": 600.0, "calls": 3}
    assert isinstance(await store.take("key:1", costs(1, 600), [CALLS], "a"), Left)


async def test_slots_are_free_again_when_their_calls_end(store):
    for lease in "abc":
        assert isinstance(await store.take("key:1", costs(0), [CALLS], lease), Left)
    refused = Spent("calls", 0, None, "in_flight")
    assert await store.take("key:1", costs(1), [CALLS], "d") == refused
    assert (await store.show("key:1", [REQUESTS], [CALLS])).remaining == {"requests": 5.0, "calls": 0}
    await store.release("key:1", "b")
    await store.release("key:1", "b")
    await store.release("key:1", "unknown")
    assert isinstance(await store.take("key:1", costs(1), [CALLS], "d"), Left)
    assert await store.take("key:1", costs(1), [CALLS], "e") == refused


async def test_a_call_that_needs_several_kinds_of_slots_gives_all_of_them_back(store):
    await store.take("key:1", (), [CALLS, STREAMS], "a")
    assert (await store.take("key:1", (), [CALLS, STREAMS], "b")).name == "streams"
    assert (await store.show("key:1", (), [CALLS, STREAMS])).remaining == {"calls": 2, "streams": 0}
    await store.release("key:1", "a")
    assert (await store.show("key:1", (), [CALLS, STREAMS])).remaining == {"calls": 3, "streams": 1}


async def test_a_lease_that_is_taken_twice_counts_once(store):
    await store.take("key:1", (), [STREAMS], "a")
    assert await store.take("key:1", (), [STREAMS], "a") == Left({"streams": 0})


async def test_taken_slots_are_named_before_an_empty_bucket(store):
    """The time would not be true: the slots may still be taken then."""
    await store.take("key:1", costs(5), [STREAMS], "a")
    assert (await store.take("key:1", costs(1), [STREAMS], "b")).kind == "in_flight"


async def test_a_call_in_progress_is_charged_more(store):
    await store.take("key:1", costs(1, 0), [CALLS], "a")
    assert await store.charge("key:1", costs(audio=400), "a") == Left({"audio": 200.0})
    refused = await store.charge("key:1", costs(audio=400), "a")
    assert (refused.name, refused.retry_after) == ("audio", pytest.approx(20.0, abs=1e-4))
    assert (await store.charge("key:1", costs(audio=601), "a")).kind == "too_large"
    assert (await store.show("key:1", [AUDIO], [CALLS])).remaining == {"audio": 200.0, "calls": 2}


async def test_an_excess_charge_is_given_back_up_to_the_burst(store):
    await store.take("key:1", costs(1, 500), (), "a")
    await store.settle("key:1", costs(audio=-200), "a")
    assert (await store.show("key:1", [AUDIO], ())).remaining == {"audio": 300.0}
    await store.settle("key:1", costs(1, -5000), "a")
    assert (await store.show("key:1", [REQUESTS, AUDIO], ())).remaining == {"requests": 3.0, "audio": 600.0}


async def test_later_calls_wait_for_a_debt(store, clock):
    await store.take("key:1", costs(1, 600), (), "a")
    await store.settle("key:1", costs(audio=100), "a")
    assert (await store.show("key:1", [AUDIO], ())).remaining == {"audio": -100.0}
    refused = await store.take("key:1", costs(audio=0), (), "b")
    assert (refused.remaining, refused.retry_after) == (-100.0, pytest.approx(10.0, abs=1e-3))
    assert (await store.take("key:1", costs(audio=50), (), "b")).retry_after == pytest.approx(15.0, abs=1e-3)
    clock.now += 15.001
    assert isinstance(await store.take("key:1", costs(audio=50), (), "b"), Left)


async def test_a_clock_set_back_costs_only_the_time_it_lost(store, clock):
    await store.take("key:1", costs(5), (), "a")
    clock.now -= 3600
    refused = await store.take("key:1", costs(1), (), "a")
    assert refused.retry_after == pytest.approx(0.5, abs=1e-4)
    await store.settle("key:1", costs(0), "a")
    await store.show("key:1", [REQUESTS], [])  # after what was told before
    clock.now += 0.51
    assert isinstance(await store.take("key:1", costs(1), (), "a"), Left)


@pytest.mark.parametrize("cost", [-1.0, math.nan, math.inf])
async def test_invalid_costs_are_refused(store, cost):
    with pytest.raises(ValueError, match="requests"):
        await store.take("key:1", costs(cost), (), "a")
    with pytest.raises(ValueError, match="requests"):
        await store.charge("key:1", costs(cost), "a")
    with pytest.raises(ValueError, match="twice"):
        await store.settle("key:1", costs(1) + costs(1), "a")


def test_buckets_and_slots_of_zero_are_refused():
    for rate, burst in ((0, 1), (1, 0), (math.nan, 1), (1, math.inf), (-1, 1)):
        with pytest.raises(ValueError, match="above 0"):
            Bucket("x", rate, burst)
    with pytest.raises(ValueError, match="at least 1"):
        Slots("x", 0)


@pytest.mark.parametrize(
    "subject", ["key:1", "jwt:https://idp#a b", "}{", "{}", "mtls:é*?[a-z]\\", "a\r\nb", "%7B", "x" * 3000, "peer:2001:db8::/64"]
)
async def test_every_name_is_its_own_subject(store, subject):
    others = ["other", subject + "x", subject[:-1] + "*"]
    for other in others:
        await store.take(other, costs(1), [CALLS], "a")
    await store.take(subject, costs(2), [CALLS], "b")
    assert set(await store.subjects(10)) == {subject, *others}
    assert len(await store.subjects(2)) == 2
    await store.reset(subject)
    assert (await store.show(subject, [REQUESTS], [CALLS])).remaining == {"requests": 5.0, "calls": 3}
    for other in others:
        assert (await store.show(other, [REQUESTS], [CALLS])).remaining == {"requests": 4.0, "calls": 2}


RATES = st.floats(0.01, 1e4)
BURSTS = st.floats(1.0, 1e6)
PARTS = st.floats(0.0, 1.2)
STEPS = st.one_of(
    st.tuples(st.just("take"), PARTS, PARTS),
    st.tuples(st.just("charge"), PARTS),
    st.tuples(st.just("settle"), st.floats(-1.0, 0.5)),
    st.tuples(st.just("release"), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.floats(0.0, 2.0)),
)


async def run(stores: list[QuotaStore], clock: Clock, buckets: list[Bucket], steps) -> list[tuple[float, str, float]]:
    """Do the same with every store in turn of the calls, or with all of them alike. Returns what was granted, and when."""
    granted: list[tuple[float, str, float]] = []
    for number, (what, *sizes) in enumerate(steps):
        charges = [Charge(bucket, bucket.burst * size) for bucket, size in zip(buckets, sizes, strict=False)]
        match what:
            case "wait":
                clock.now += sizes[0] * buckets[0].burst / buckets[0].rate
                continue
            case "release":
                for one in stores:
                    await one.release("key:1", f"call {sizes[0]}")
                continue
            case "take":
                answers = [await one.take("key:1", charges, [CALLS], f"call {number % 10}") for one in stores]
            case "charge":
                answers = [await one.charge("key:1", charges, "") for one in stores]
            case _:
                for one in stores:
                    await one.settle("key:1", charges, "")
                answers = [await one.show("key:1", buckets, [CALLS]) for one in stores]
                granted += [(clock.now, charge.bucket.name, charge.cost) for charge in charges if charge.cost < 0]
        assert answers.count(answers[0]) == len(answers), f"step {number}: {answers}"
        if what != "settle" and isinstance(answers[0], Left):
            granted += [(clock.now, charge.bucket.name, charge.cost) for charge in charges]
    return granted


def check_bound(granted: list[tuple[float, str, float]], buckets: list[Bucket]) -> None:
    """Over every stretch of time: what was granted, less what was given back within it, is at most burst + rate x time."""
    for bucket in buckets:
        own = [(at, cost) for at, name, cost in granted if name == bucket.name]
        for first in range(len(own)):
            total = 0.0
            for at, cost in own[first:]:
                total += cost
                bound = bucket.burst + bucket.rate * (at - own[first][0])
                assert total <= bound * (1 + 1e-9) + bucket.rate * 1e-6, bucket


@given(rates=st.tuples(RATES, RATES), bursts=st.tuples(BURSTS, BURSTS), steps=st.lists(STEPS, max_size=40))
def test_both_stores_decide_alike_and_grant_at_most_burst_plus_rate_x_time(redis_server, rates, bursts, steps):
    buckets = [Bucket(name, rate, burst) for name, rate, burst in zip("ab", rates, bursts, strict=True)]

    async def both() -> None:
        clock = Clock()
        async with connected(redis_server, clock, f"alike{next(NUMBERS)}") as shared:
            granted = await run([MemoryStore(clock=clock), _Renewing(shared)], clock, buckets, steps)
        check_bound(granted, buckets)

    asyncio.run(both())


NUMBERS = itertools.count()


class _Renewing:
    """A live replica, whose leases never expire, as in the memory store."""

    def __init__(self, one: RedisStore) -> None:
        self._one = one

    def __getattr__(self, name):
        async def call(*arguments):
            await self._one.refresh()
            return await getattr(self._one, name)(*arguments)

        return call


@given(
    rate=RATES,
    burst=BURSTS,
    steps=st.lists(st.tuples(st.integers(0, 1), PARTS, st.floats(0, 0.5)), max_size=30),
)
def test_two_replicas_grant_together_what_one_would(redis_server, rate, burst, steps):
    bucket = Bucket("a", rate, burst)

    async def both() -> None:
        clock, prefix, granted = Clock(), f"two{next(NUMBERS)}", []
        alone = MemoryStore(clock=clock)
        async with connected(redis_server, clock, prefix) as one, connected(redis_server, clock, prefix) as other:
            for number, (which, part, wait) in enumerate(steps):
                charges = [Charge(bucket, burst * part)]
                clock.now += wait * burst / rate
                await one.refresh()
                await other.refresh()
                answer = await (one, other)[which].take("key:1", charges, [CALLS], str(number))
                assert answer == await alone.take("key:1", charges, [CALLS], str(number))
                if isinstance(answer, Left):
                    granted.append((clock.now, "a", burst * part))
        check_bound(granted, [bucket])

    asyncio.run(both())


@given(
    rate=RATES,
    burst=BURSTS,
    before=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.3)), min_size=1, max_size=8),
    debt=st.floats(0, 3),
    part=st.floats(0, 1),
)
def test_a_call_is_granted_after_retry_after_and_not_before(redis_server, rate, burst, before, debt, part):
    bucket = Bucket("a", rate, burst)
    charges = [Charge(bucket, burst * part)]

    async def check(one: QuotaStore, clock: Clock) -> None:
        for size, wait in before:
            await one.take("key:1", [Charge(bucket, burst * size)], (), "")
            clock.now += wait * burst / rate
        await one.settle("key:1", [Charge(bucket, burst * debt)], "")
        refused = await one.take("key:1", charges, (), "")
        if isinstance(refused, Left):
            return
        asked = clock.now
        early = refused.retry_after * (1 - 1e-6) - 1e-5
        if early > 0:
            clock.now = asked + early
            assert isinstance(await one.take("key:1", charges, (), ""), Spent)
        clock.now = asked + refused.retry_after
        assert isinstance(await one.take("key:1", charges, (), ""), Left)

    async def both() -> None:
        clock = Clock()
        await check(MemoryStore(clock=clock), clock)
        async with connected(redis_server, clock, f"retry{next(NUMBERS)}") as shared:
            await check(shared, clock)

    asyncio.run(both())


async def test_the_leases_of_a_crashed_replica_expire(redis, clock):
    prefix = redis.prefix()
    async with connected(redis, clock, prefix) as crashed, connected(redis, clock, prefix) as alive:
        await crashed.take("key:1", (), [CALLS], "a")
        await crashed.take("key:1", (), [CALLS], "b")
        await alive.take("key:1", (), [CALLS], "c")
        for _ in range(3):
            clock.now += LEASE_SECONDS - 1
            await alive.refresh()
        assert (await alive.show("key:1", (), [CALLS])).remaining == {"calls": 2}
        assert isinstance(await alive.take("key:1", (), [CALLS], "d"), Left)
        assert isinstance(await alive.take("key:1", (), [CALLS], "e"), Left)
        assert (await alive.take("key:1", (), [CALLS], "f")).kind == "in_flight"
        # It was cut off and had not crashed: its calls go on, and count again.
        await crashed.refresh()
        assert (await alive.show("key:1", (), [CALLS])).remaining == {"calls": -2}


async def test_leases_are_renewed_in_the_background(redis):
    prefix = redis.prefix()
    store = RedisStore(redis.url, prefix=prefix, timeout=10.0, renew_every=0.01)
    await store.start()
    try:
        await store.take("key:1", (), [CALLS], "a")
        redis.command("DEL", f"{prefix}:{{key:1}}:slots:calls")

        async def renewed() -> bool:
            return (await store.show("key:1", (), [CALLS])).remaining == {"calls": 2}

        await eventually(renewed)
    finally:
        await store.close()


async def test_many_leases_are_renewed(redis, clock):
    async with connected(redis, clock) as store:
        slots = Slots("calls", 1000)
        for number in range(450):
            await store.take(f"key:{number % 3}", (), [slots], f"call {number}")
        clock.now += LEASE_SECONDS - 1
        await store.refresh()
        clock.now += LEASE_SECONDS - 1
        assert [(await store.show(f"key:{number}", (), [slots])).remaining["calls"] for number in range(3)] == [850] * 3


async def test_leases_whose_answer_was_lost_are_released_later(redis, clock):
    """A server that hangs executes the commands it has received when it goes on, after their timeout."""
    async with connected(redis, clock) as store:
        await store.take("key:1", (), [CALLS], "a")
        redis.pause()
        store.client.timeout = 0.05
        with pytest.raises(StoreUnavailableError, match="no answer within 50 ms"):
            await store.take("key:1", (), [CALLS], "b")
        with pytest.raises(StoreUnavailableError):
            await store.release("key:1", "a")
        redis.resume()
        store.client.timeout = 10.0
        assert (await store.show("key:1", (), [CALLS])).remaining == {"calls": 1}
        await store.refresh()
        assert (await store.show("key:1", (), [CALLS])).remaining == {"calls": 3}


async def test_a_call_that_ends_during_the_renewal_holds_no_slot(redis, clock):
    async with connected(redis, clock) as store:
        await store.take("key:1", (), [CALLS], "a")
        send = store.client.run_all

        async def late(commands):
            if any(json.loads(asked)["mode"] == "renew" for _, (asked,) in commands):
                await store.release("key:1", "a")
            await send(commands)

        store.client.run_all = late
        await store.refresh()
        assert (await store.show("key:1", (), [CALLS])).remaining == {"calls": 3}


async def test_a_call_cancelled_while_it_takes_slots_holds_none(redis, clock):
    async with connected(redis, clock) as store:
        await store.refresh()
        taking = asyncio.create_task(store.take("key:1", (), [CALLS], "a"))
        await loop_turns()
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        await store.refresh()
        assert (await store.show("key:1", (), [CALLS])).remaining == {"calls": 3}
        # The answer to the cancelled command is not taken for the next one's.
        assert await store.take("key:1", costs(1), (), "b") == Left({"requests": 4.0})


async def test_one_round_trip_decides_everything(redis, clock):
    async with connected(redis, clock) as store:
        await store.refresh()
        redis.command("CONFIG", "RESETSTAT")
        for number in range(3):
            await store.take("key:1", costs(1, 5), [CALLS, STREAMS], f"call {number}")
        stats = redis.command("INFO", "commandstats")
    assert re.search(r"cmdstat_evalsha:calls=3,", stats)
    assert not re.search(r"cmdstat_(eval|script|multi|hello|ping)\b", stats)


async def test_the_script_is_loaded_again_after_a_restart(redis, clock):
    async with connected(redis, clock) as store:
        await store.take("key:1", costs(1), (), "a")
        redis.command("SCRIPT", "FLUSH")
        assert await store.take("key:1", costs(1), (), "b") == Left({"requests": 3.0})


async def test_the_time_is_that_of_redis(redis, monkeypatch):
    """Replicas whose clocks differ count alike."""
    monkeypatch.setattr("time.time", lambda: 5.0)
    async with connected(redis, None) as store:
        await store.take("key:1", costs(1), [CALLS], "a")
        stored = redis.command("HGET", f"{store.prefix}:{{key:1}}:used", "requests")
        seconds = float(redis.command("TIME").split("\r\n")[2])
    assert abs(float(stored.split()[2]) - seconds) < 60


async def test_every_key_expires_and_those_of_a_subject_share_a_hash_slot(redis, clock):
    async with connected(redis, clock) as store:
        await store.take("key:1", costs(1, 300), [CALLS, STREAMS], "a")
        await store.settle("key:1", costs(audio=600), "a")
        keys = [key async for key in store.client.scan(f"{store.prefix}:*")]
        lives = {key: int(redis.command("PTTL", key).strip().lstrip(":")) for key in keys}
    assert len(keys) == 3
    assert len({key_slot(key.encode()) for key in keys}) == 1
    used = next(life for key, life in lives.items() if key.endswith(":used"))
    assert 90_000 < used <= 90_000 + 60_000
    assert all(0 < life <= (LEASE_SECONDS + 60) * 1000 for key, life in lives.items() if ":slots:" in key)


async def test_passwords_are_never_shown(redis):
    wrong = redis.url.replace("s3cret", "wr0ng")
    store = RedisStore(wrong, prefix=redis.prefix(), timeout=10.0)
    with pytest.raises(StoreUnavailableError) as refused:
        await store.take("key:1", costs(1), (), "a")
    assert store.place == f"redis://127.0.0.1:{redis.port}/0"
    assert str(refused.value) == "it refuses the user or the password"
    assert refused.value.__cause__ is None
    await store.close()
    for bad in (f"http://:{PASSWORD}@host", "redis://:pass:word@host:port/0", "redis://u:p%40ss@host:99999"):
        with pytest.raises(ValueError, match="not a Redis URL") as refused:
            RedisStore(bad)
        assert "pass" not in str(refused.value).replace("PASSWORD", "").lower()


@pytest.mark.parametrize("prefix", ["", "a{b", "a b", "a*"])
def test_an_invalid_prefix_is_refused(prefix):
    with pytest.raises(ValueError, match="prefix"):
        RedisStore("redis://127.0.0.1", prefix=prefix)


async def test_a_server_without_memory_is_unavailable(redis, clock):
    async with connected(redis, clock) as store:
        await store.take("key:1", costs(1), (), "a")
        redis.command("CONFIG", "SET", "maxmemory", "1")
        try:
            with pytest.raises(StoreUnavailableError, match="error"):
                await store.take("key:1", costs(1), (), "a")
            with pytest.raises(StoreUnavailableError):
                await store.refresh()
        finally:
            redis.command("CONFIG", "SET", "maxmemory", "0")
        await store.refresh()


async def test_accounts_with_full_buckets_are_evicted_first(clock):
    store = MemoryStore(clock=clock, max_subjects=4)
    await store.take("in debt", costs(5), (), "")
    await store.take("in flight", (), [CALLS], "a")
    await store.take("refills", costs(1), (), "")
    clock.now += 1.0
    await store.take("new", costs(4), (), "")
    await store.take("newer", costs(1), (), "")
    assert set(await store.subjects(10)) == {"in debt", "in flight", "new", "newer"}
    # None is full: the one that will be first.
    await store.take("newest", costs(5), (), "")
    assert set(await store.subjects(10)) == {"in debt", "in flight", "new", "newest"}
    assert (await store.show("in flight", (), [CALLS])).remaining == {"calls": 2}


async def test_accounts_with_calls_in_flight_are_kept_beyond_the_bound_and_no_others(clock):
    store = MemoryStore(clock=clock, max_subjects=4)
    for number in range(100):
        await store.take(f"busy {number}", (), [CALLS], "a")
    assert len(await store.subjects(1000)) == 100
    for number in range(100):
        await store.release(f"busy {number}", "a")
    for number in range(1000):
        await store.take(f"idle {number}", costs(1), (), "a")
    assert len(await store.subjects(2000)) == 4


async def test_a_process_that_ends_leaves_its_slots_to_the_others():
    counts = SharedCounts()
    async with linked(counts, 1) as one, linked(counts, 2) as other:
        for lease in "ab":
            assert await one.take("key:1", (), [Slots("calls", 3)], lease)
        assert await other.take("key:1", (), [Slots("calls", 3)], "a") == Left({"calls": 0})
        assert await other.take("key:1", (), [Slots("calls", 3)], "b") == Spent("calls", 0, None, "in_flight")
        await counts.forget(1)
        assert await other.take("key:1", (), [Slots("calls", 3)], "b") == Left({"calls": 1})


async def test_a_take_that_is_cancelled_keeps_nothing():
    async with linked(SharedCounts(), 1) as store:
        taking = asyncio.create_task(store.take("key:1", (), [STREAMS], "a"))
        await loop_turns()
        taking.cancel()
        await asyncio.wait({taking})
        assert await store.take("key:1", (), [STREAMS], "b") == Left({"streams": 0})


async def test_without_an_answer_the_store_is_unavailable():
    ours, theirs = socket.socketpair()
    link = Duplex({})
    await link.open(ours)
    theirs.close()
    await link.closed.wait()
    with pytest.raises(StoreUnavailableError):
        await LinkedStore(link).take("key:1", (), [STREAMS], "a")
