"""Quotas while the shared store is unavailable: no call waits or fails, and no more than the share is granted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interceptors.quota.stores.base import Bucket, Charge, Left, Slots, Spent, StoreUnavailableError
from interceptors.quota.stores.fallback import RETRY_AFTER, FallbackStore
from interceptors.quota.stores.memory import MemoryStore
from interceptors.quota.stores.redis_store import RedisStore
from tests.kit import redis_server as rs
from tests.kit.redis_server import PASSWORD
from tests.kit.waiting import eventually, loop_turns

redis = rs.redis
redis_server = rs.redis_server

REQUESTS, AUDIO = Bucket("requests", 2.0, 10.0), Bucket("audio", 10.0, 600.0)
CALLS = Slots("calls", 4)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Shared(MemoryStore):
    """A shared store whose outages are scripted. `asked`: the methods called, without probes."""

    place = "redis://somewhere"

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.unavailable = False
        self.asked: list[str] = []
        self.probes = 0
        self.later: list[str] = []

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.unavailable:
            raise StoreUnavailableError("no answer")

    async def take(self, *arguments):
        self._ask("take")
        return await super().take(*arguments)

    async def charge(self, *arguments):
        self._ask("charge")
        return await super().charge(*arguments)

    async def settle(self, *arguments):
        self._ask("settle")
        return await super().settle(*arguments)

    async def release(self, *arguments):
        self._ask("release")
        return await super().release(*arguments)

    async def show(self, *arguments):
        self._ask("show")
        return await super().show(*arguments)

    async def reset(self, *arguments):
        self._ask("reset")
        return await super().reset(*arguments)

    async def refresh(self):
        self.probes += 1
        if self.unavailable:
            raise StoreUnavailableError("no answer")

    def release_later(self, lease):
        self.later.append(lease)


class Bench:
    def __init__(self, replicas: int = 2, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.shared, self.local = Shared(self.clock), MemoryStore(clock=self.clock)
        self.store = FallbackStore(self.shared, self.local, replicas, probe_every=0.001, clock=self.clock)

    async def lose(self) -> None:
        self.shared.unavailable = True
        await self.store.show("key:0", (), ())
        self.shared.asked.clear()

    async def find(self) -> None:
        self.shared.unavailable = False
        await eventually(lambda: not self.store.degraded)


@asynccontextmanager
async def bench(**options) -> AsyncIterator[Bench]:
    made = Bench(**options)
    await made.store.start()
    yield made
    await made.store.close()


def costs(requests: float | None = None, audio: float | None = None) -> list[Charge]:
    both = ((REQUESTS, requests), (AUDIO, audio))
    return [Charge(bucket, cost) for bucket, cost in both if cost is not None]


async def left(store, *buckets: Bucket) -> dict[str, float]:
    return dict((await store.show("key:1", buckets or (REQUESTS, AUDIO), (CALLS,))).remaining)


async def test_only_the_shared_store_counts_while_it_answers():
    async with bench() as made:
        assert await made.store.take("key:1", costs(1, 600), [CALLS], "a") == Left({"requests": 9, "audio": 0, "calls": 3})
        assert (await made.store.charge("key:1", costs(audio=1), "a")).name == "audio"
        await made.store.settle("key:1", costs(audio=-100), "a")
        assert await left(made.store) == {"requests": 9, "audio": 100, "calls": 3}
        await made.store.release("key:1", "a")
        assert await left(made.store) == {"requests": 9, "audio": 100, "calls": 4}
        assert await made.local.subjects(1) == []
        assert not made.store.degraded


async def test_the_call_that_notices_an_outage_is_answered_and_no_other_tries():
    async with bench() as made:
        made.shared.unavailable = True
        assert await made.store.take("key:1", costs(1), [CALLS], "a") == Left({"requests": 4, "calls": 1})
        assert made.shared.asked == ["take"]
        assert (made.store.degraded, made.store.since, made.store.losses) == (True, 1000.0, 1)
        for number in range(20):
            await made.store.take("key:1", costs(0), (), str(number))
            await made.store.charge("key:1", costs(0), str(number))
            await made.store.settle("key:1", costs(0), str(number))
            await made.store.release("key:1", str(number))
        await made.store.show("key:1", [REQUESTS], ())
        await made.store.subjects(5)
        assert made.shared.asked == ["take"]


async def test_calls_that_notice_an_outage_together_count_it_once():
    async with bench() as made:
        asked, answer = 0, asyncio.Event()

        async def hang(*_):
            nonlocal asked
            asked += 1
            await answer.wait()
            raise StoreUnavailableError("no answer")

        made.shared.take, made.shared.unavailable = hang, True
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(made.store.take("key:1", costs(1), (), str(number))) for number in range(5)]
            await eventually(lambda: asked == 5)
            answer.set()
        assert all(isinstance(call.result(), Left) for call in calls)
        assert (made.store.losses, made.shared.probes) == (1, 2)  # one of them at the start


@pytest.mark.parametrize("what", ["take", "charge", "settle", "release", "show", "subjects"])
async def test_no_method_raises_in_an_outage(what):
    async with bench() as made:
        await made.store.take("key:1", costs(1), [CALLS], "a")
        made.shared.subjects = made.shared.show
        made.shared.unavailable = True
        arguments = {
            "take": ("key:1", costs(1), [CALLS], "b"),
            "charge": ("key:1", costs(1), "a"),
            "settle": ("key:1", costs(1), "a"),
            "release": ("key:1", "a"),
            "show": ("key:1", [REQUESTS], ()),
            "subjects": (5,),
        }[what]
        await getattr(made.store, what)(*arguments)
        assert made.store.degraded
        used = 5 - (await made.local.show("key:1", [Bucket("requests", 1.0, 5.0)], ())).remaining["requests"]
        assert used == (1 if what in {"take", "charge", "settle"} else 0)


async def test_the_shared_store_is_used_again_as_soon_as_it_answers(caplog):
    async with bench() as made:
        await made.lose()
        await eventually(lambda: made.shared.probes >= 5)
        made.shared.unavailable = False
        await eventually(lambda: not made.store.degraded)
        assert await made.store.take("key:1", costs(1), (), "a") == Left({"requests": 9})
        assert made.store.since is None
        lines = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
        assert lines == [
            "quotas: redis://somewhere is unavailable (no answer); this replica grants 1/2 of every limit",
            "quotas: redis://somewhere is available again; limits are shared again",
        ]


async def test_a_single_late_answer_is_logged_as_such(caplog):
    caplog.set_level(logging.INFO)
    async with bench() as made:
        made.shared.unavailable = True
        await made.store.take("key:1", costs(1), (), "a")
        made.shared.unavailable = False
        await eventually(lambda: not made.store.degraded)
        assert [record.levelno for record in caplog.records] == [logging.INFO]
        assert made.store.losses == 1


async def test_the_probe_goes_on_after_a_bug(caplog):
    async with bench() as made:
        made.shared.refresh, refresh = None, made.shared.refresh
        await made.lose()
        await eventually(lambda: "'NoneType' object is not callable" in caplog.text)
        made.shared.unavailable, made.shared.refresh = False, refresh
        await eventually(lambda: not made.store.degraded)


async def test_the_start_succeeds_without_the_shared_store():
    made = Bench()
    made.shared.unavailable = True
    await made.store.start()
    assert made.store.degraded
    assert isinstance(await made.store.take("key:1", costs(1), (), "a"), Left)
    await made.store.close()
    await made.store.close()


def test_zero_replicas_are_refused():
    with pytest.raises(ValueError, match="replica"):
        FallbackStore(Shared(Clock()), MemoryStore(), 0)


RATES, BURSTS = st.floats(0.01, 1e4), st.floats(2.0, 1e6)


@settings(max_examples=200)
@given(
    replicas=st.integers(2, 5),
    rate=RATES,
    burst=BURSTS,
    limit=st.integers(1, 12),
    steps=st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1.2), st.floats(0, 0.5)), max_size=40),
)
def test_replicas_in_an_outage_grant_at_most_the_limit_together(replicas, rate, burst, limit, steps):
    bucket = Bucket("a", rate, burst)

    async def all_of_them() -> None:
        clock = Clock()
        gateways = [Bench(replicas, clock) for _ in range(replicas)]
        for gateway in gateways:
            await gateway.lose()
        granted: list[tuple[float, float]] = []
        in_flight = 0
        for number, (which, part, wait) in enumerate(steps):
            clock.now += wait * burst / rate
            charges = [Charge(bucket, part * burst / replicas)]
            answer = await gateways[which % replicas].store.take("key:1", charges, [Slots("calls", limit)], str(number))
            if isinstance(answer, Left):
                granted.append((clock.now, charges[0].cost))
                in_flight += 1
        assert in_flight <= max(limit, replicas)
        for first in range(len(granted)):
            for last in range(first, len(granted)):
                total = sum(cost for _, cost in granted[first : last + 1])
                time = granted[last][0] - granted[first][0]
                assert total <= (max(burst, replicas) + rate * time) * (1 + 1e-9) + rate * 1e-6
        for gateway in gateways:
            await gateway.store.close()

    asyncio.run(all_of_them())


async def test_a_share_is_one_unit_at_least():
    async with bench(replicas=100) as made:
        await made.lose()
        assert await made.store.take("key:1", costs(1), [CALLS], "a") == Left({"requests": 0, "calls": 0})
        refused = await made.store.take("key:1", costs(1), (), "b")
        assert (refused.kind, refused.retry_after) == ("spent", pytest.approx(50.0, abs=1e-3))


async def test_a_cost_above_the_share_and_below_the_burst_can_be_retried():
    async with bench() as made:
        await made.lose()
        assert await made.store.take("key:1", costs(1, 500), (), "a") == Spent("audio", 300.0, RETRY_AFTER, "spent")
        assert await made.store.charge("key:1", costs(audio=500), "a") == Spent("audio", 300.0, RETRY_AFTER, "spent")
        assert (await made.store.take("key:1", costs(1, 601), (), "a")).kind == "too_large"
        assert (await made.store.take("key:1", costs(11, 1), (), "a")).kind == "too_large"


async def test_slots_are_given_back_where_they_were_taken():
    async with bench() as made:
        await made.store.take("key:1", (), [CALLS], "before")
        await made.store.take("key:1", (), [CALLS], "ends meanwhile")
        await made.lose()
        await made.store.take("key:1", (), [CALLS], "meanwhile")
        await made.store.release("key:1", "ends meanwhile")
        assert made.shared.later == ["ends meanwhile"]
        assert made.shared.asked == []
        await made.find()
        assert (await made.local.show("key:1", (), [CALLS])).remaining == {"calls": 3}
        await made.store.release("key:1", "meanwhile")
        await made.store.release("key:1", "before")
        await made.store.release("key:1", "before")
        assert (await made.local.show("key:1", (), [CALLS])).remaining == {"calls": 4}
        assert (await left(made.shared))["calls"] == 3
        assert made.store.calls_in_flight == 0


async def test_charges_are_given_back_to_the_store_they_were_taken_from_or_to_none():
    async with bench() as made:
        share = Bucket("audio", 5.0, 300.0)
        for lease in ("before", "both"):
            await made.store.take("key:1", costs(audio=100), (), lease)
        await made.lose()
        await made.store.take("key:1", costs(audio=100), (), "meanwhile")
        await made.store.take("key:1", costs(audio=100), (), "ends meanwhile")
        await made.store.charge("key:1", costs(audio=50), "both")
        assert (await made.local.show("key:1", [share], ())).remaining == {"audio": 50.0}
        for lease in ("before", "both", "unknown"):
            await made.store.settle("key:1", costs(audio=-40), lease)
        assert (await made.local.show("key:1", [share], ())).remaining == {"audio": 50.0}
        await made.store.settle("key:1", costs(1, audio=-40), "ends meanwhile")
        assert (await made.local.show("key:1", [share], ())).remaining == {"audio": 90.0}
        await made.find()
        made.shared.asked.clear()
        for lease in ("before", "both", "unknown"):
            await made.store.settle("key:1", costs(audio=-40), lease)
        assert made.shared.asked == []
        await made.store.settle("key:1", costs(2, audio=-40), "meanwhile")
        assert (await made.local.show("key:1", [share], ())).remaining == {"audio": 130.0}
        assert await left(made.shared) == {"requests": 8.0, "audio": 400.0, "calls": 4}
        await made.store.charge("key:1", costs(audio=10), "meanwhile")
        await made.store.settle("key:1", costs(audio=-5), "meanwhile")
        assert (await left(made.shared))["audio"] == 390.0
        assert (await made.local.show("key:1", [share], ())).remaining == {"audio": 130.0}


async def test_units_used_in_an_outage_still_count_in_the_next_one():
    async with bench() as made:
        await made.lose()
        await made.store.take("key:1", costs(5), (), "a")
        await made.find()
        await made.lose()
        assert isinstance(await made.store.take("key:1", costs(1), (), "b"), Spent)


async def test_an_incomplete_reset_raises():
    async with bench() as made:
        await made.store.take("key:1", costs(5), (), "a")
        await made.store.reset("key:1")
        assert (await left(made.store))["requests"] == 10
        made.shared.unavailable = True
        with pytest.raises(StoreUnavailableError):
            await made.store.reset("key:1")
        await made.store.take("key:1", costs(5), (), "a")
        with pytest.raises(StoreUnavailableError):
            await made.store.reset("key:1")
        assert (await left(made.store))["requests"] == 5


class Counting(RedisStore):
    """Counts the calls of a real store."""

    tries = 0

    async def take(self, *arguments):
        self.tries += 1
        return await super().take(*arguments)


@pytest.mark.parametrize("fault", ["pause", "kill"])
async def test_an_outage_of_redis_under_load(redis, fault, caplog):
    """Calls go on while Redis hangs or dies, and when it answers again. None fails."""
    shared = Counting(redis.url, prefix=redis.prefix())
    store = FallbackStore(shared, MemoryStore(), 2, probe_every=0.02)
    await store.start()
    requests, calls = Bucket("requests", 1e6, 1e6), Slots("calls", 100)
    answers = 0

    async def caller(number: int) -> None:
        nonlocal answers
        while not done.is_set():
            lease = f"{number}:{answers}"
            assert isinstance(await store.take("key:1", [Charge(requests, 1)], [calls], lease), Left)
            await loop_turns()
            await store.settle("key:1", [Charge(requests, -0.5)], lease)
            await store.release("key:1", lease)
            answers += 1

    async def more(count: int) -> None:
        wanted = answers + count
        await eventually(lambda: answers >= wanted)

    done = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(caller(number))
        await more(50)
        for _ in range(2):
            await asyncio.to_thread(getattr(redis, fault))
            await eventually(lambda: caplog.text.count("is unavailable") > caplog.text.count("is available again"))
            tries = shared.tries
            await more(100)
            assert shared.tries == tries
            await asyncio.to_thread(redis.resume if fault == "pause" else redis.start)
            await eventually(lambda before=tries: shared.tries > before)
            await more(50)
        done.set()
    # Every slot is free again, also those whose answer was lost.
    shared.client.timeout = 10.0
    await shared.refresh()
    assert (await shared.show("key:1", (), [calls])).remaining == {"calls": 100}
    await store.close()
    assert PASSWORD not in caplog.text
    assert caplog.text.count("is available again") >= 2
