"""Every item ends exactly once, with its own result or a clear error, whatever the device and the rest of its batch do.

Each test scripts the device, and the clock moves only when nothing else can run: a test that waits for something that never
happens fails at once.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_svc.domain import Caller
from aligner_svc.engines.batch_report import BatchReport, BatchWatch
from aligner_svc.engines.batching import Batcher, DeviceMemoryError
from aligner_svc.engines.tickets import Done
from aligner_svc.errors import AlignerError, LimitExceededError, UnavailableError
from tests.kit.waiting import loop_turns


class Clockwork(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer when nothing is ready to run."""

    now = 1_000.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and not self._stopping:  # type: ignore[attr-defined]
            timers = [timer.when() for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
            assert timers, "deadlock: nothing is ready and no timer is set"
            self.now = max(self.now, min(timers))
        super()._run_once()  # type: ignore[misc]

    @property
    def busy(self) -> bool:
        return bool(self._ready)  # type: ignore[attr-defined]


def by_clockwork(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=Clockwork) as runner:
            runner.run(test(*args, **kwargs))

    return run


async def settle() -> None:
    """Return once every task waits."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Clockwork)
    await loop_turns()
    await until(lambda: not loop.busy)


async def until(condition: Callable[[], bool]) -> None:
    """Check after every turn of the loop."""
    while not condition():
        await loop_turns()


async def advance(seconds: float) -> None:
    """Move the scripted clock on."""
    await asyncio.sleep(seconds)


@dataclass(frozen=True)
class Item:
    name: str
    size: int = 1


class Device:
    """`run` of a batcher: every call waits until the test ends it, unless `automatic`."""

    def __init__(self) -> None:
        self.calls: list[list[Item]] = []
        self.running: list[tuple[list[Item], asyncio.Future[Sequence[str] | None]]] = []
        self.cancelled: list[list[Item]] = []
        self.automatic = False
        self.poison: set[str] = set()

    async def __call__(self, items: Sequence[Item]) -> Sequence[str]:
        batch = list(items)
        self.calls.append(batch)
        if self.automatic:
            await loop_turns()
            failed_alone = [item for item in batch if item.name in self.poison]
            if failed_alone:
                raise PoisonError(failed_alone[0].name)
            return answers(batch)
        end: asyncio.Future[Sequence[str] | None] = asyncio.get_running_loop().create_future()
        self.running.append((batch, end))
        try:
            return await end or answers(batch)
        except asyncio.CancelledError:
            self.cancelled.append(batch)
            raise
        finally:
            self.running.remove((batch, end))

    async def end(self, error: Exception | None = None, *, slot: int = 0, results: Sequence[str] | None = None) -> None:
        """End the oldest call, and run what follows from that."""
        _, end = self.running[slot]
        if error is None:
            end.set_result(results)
        else:
            end.set_exception(error)
        await settle()

    def names(self) -> list[list[str]]:
        return [[item.name for item in batch] for batch in self.calls]


class PoisonError(Exception):
    """Raised by the device for a bad item."""


class Canary:
    """`check` of a batcher. Records when it is called; passes, fails, or waits for the test."""

    def __init__(self, *verdicts: bool) -> None:
        self.verdicts = list(verdicts)
        self.calls: list[float] = []
        self.gate: asyncio.Future[None] | None = None

    async def __call__(self) -> None:
        self.calls.append(asyncio.get_running_loop().time())
        if self.gate is not None:
            await self.gate
        if not self.verdicts.pop(0):
            raise OSError("CUDA error: unspecified launch failure")


def answers(batch: Sequence[Item]) -> list[str]:
    return [f"answer to {item.name}" for item in batch]


def batcher(run: Callable[[Sequence[Item]], Awaitable[Sequence[str]]], **settings: Any) -> Batcher[Item, str]:
    return Batcher(run, **({"size": lambda item: item.size, "budget": 100, "max_items": 8, "queue": 1_000} | settings))


def submit(
    batches: Batcher[Item, str], item: Item | str, client: str = "", within: float | None = None
) -> asyncio.Task[Done[str]]:
    loop = asyncio.get_running_loop()
    caller = Caller(client, None if within is None else loop.time() + within)
    return loop.create_task(batches.submit(item if isinstance(item, Item) else Item(item), caller))


async def outcome(task: asyncio.Task[Done[str]]) -> str:
    """The result, or the reason or kind of the error."""
    try:
        return (await task).result
    except AlignerError as error:
        return error.reason
    except PoisonError as error:
        return f"poison {error}"


async def outcomes(tasks: Sequence[asyncio.Task[Done[str]]]) -> list[str]:
    return [await outcome(task) for task in tasks]


# Starting


@by_clockwork
async def test_an_idle_slot_starts_at_once_and_later_items_share_the_next_batch() -> None:
    device = Device()
    batches = batcher(device)
    first = submit(batches, "a")
    await settle()
    assert device.names() == [["a"]]
    others = [submit(batches, name) for name in "bc"]
    await settle()
    assert device.names() == [["a"]]
    await device.end()
    assert device.names() == [["a"], ["b", "c"]]
    await device.end()
    assert await outcomes([first, *others]) == ["answer to a", "answer to b", "answer to c"]
    assert asyncio.get_running_loop().time() == Clockwork.now, "it waited for more items"


@by_clockwork
async def test_items_submitted_in_one_turn_of_the_loop_share_a_batch() -> None:
    device = Device()
    batches = batcher(device)
    submits = [submit(batches, name) for name in "abc"]
    await settle()
    assert device.names() == [["a", "b", "c"]]
    await device.end()
    await outcomes(submits)


@by_clockwork
async def test_callers_that_submit_again_at_once_stay_in_one_batch() -> None:
    device = Device()
    device.automatic = True
    batches = batcher(device)

    async def one_after_another(name: str) -> None:
        for number in range(5):
            await batches.submit(Item(f"{name}{number}"), Caller(name))

    await asyncio.gather(*(one_after_another(name) for name in "abc"))
    assert [len(call) for call in device.calls] == [3] * 5


@by_clockwork
async def test_every_slot_runs_a_batch() -> None:
    device = Device()
    batches = batcher(device, slots=3, max_items=1)
    submits = [submit(batches, name) for name in "abcd"]
    await settle()
    assert device.names() == [["a"], ["b"], ["c"]]
    await device.end(slot=1)
    assert device.names()[3:] == [["d"]]
    for _ in range(3):
        await device.end()
    assert await outcomes(submits) == answers([Item(name) for name in "abcd"])


@by_clockwork
async def test_queued_and_busy_add_up_to_the_time_since_submit() -> None:
    device = Device()
    batches = batcher(device, max_items=1)
    first, second = submit(batches, "a"), submit(batches, "b")
    await settle()
    await advance(2)
    await device.end()
    await advance(3)
    await device.end()
    assert ((await first).queued, (await first).busy) == (0, 2)
    assert ((await second).queued, (await second).busy) == (2, 3)


@by_clockwork
async def test_a_batch_is_given_ahead_once_it_is_half_full() -> None:
    device = Device()
    batches = batcher(device, ahead=1, max_items=4)
    submits = [submit(batches, "a")]
    await settle()
    submits.append(submit(batches, "b"))
    await settle()
    assert device.names() == [["a"]]
    await advance(1)
    submits.append(submit(batches, "c"))
    await settle()
    assert device.names() == [["a"], ["b", "c"]]
    submits += [submit(batches, name) for name in "defg"]
    await settle()
    assert len(device.names()) == 2, "one more than there are slots, and not two"
    await advance(2)
    await device.end()
    assert device.names()[2:] == [["d", "e", "f", "g"]]
    await advance(4)
    await device.end()
    await device.end()
    times = [((await each).queued, (await each).busy) for each in submits]
    assert times == [(0, 3), (3, 4), (2, 4), *[(6, 0)] * 4], "what waits for the device there is queued"


@by_clockwork
async def test_a_large_item_alone_is_half_a_batch() -> None:
    device = Device()
    batches = batcher(device, ahead=1)
    submits = [submit(batches, Item("a")), submit(batches, Item("b", size=50))]
    await settle()
    submits.append(submit(batches, Item("c", size=49)))
    await settle()
    assert device.names() == [["a", "b"]]
    submits.append(submit(batches, Item("d", size=1)))
    await settle()
    assert device.names() == [["a", "b"], ["c", "d"]]
    await device.end()
    await device.end()
    await outcomes(submits)


# Size


@by_clockwork
async def test_a_batch_keeps_to_budget_and_max_items() -> None:
    device = Device()
    device.automatic = True
    batches = batcher(device, budget=10, max_items=3)
    sizes = [4, 6, 1, 1, 1, 1, 25, 10, 1]
    await outcomes([submit(batches, Item(f"{number}", size)) for number, size in enumerate(sizes)])
    assert [[item.size for item in call] for call in device.calls] == [[4, 6], [1, 1, 1], [1], [25], [10], [1]]


@by_clockwork
async def test_an_item_of_size_0_counts_as_1() -> None:
    device = Device()
    device.automatic = True
    batches = batcher(device, budget=3)
    await outcomes([submit(batches, Item(f"{number}", 0)) for number in range(5)])
    assert [len(call) for call in device.calls] == [3, 2]


@given(sizes=st.lists(st.integers(1, 3_000), min_size=1, max_size=120), seed=st.integers(0, 1_000))
@settings(max_examples=60)
def test_padded_batches_hold_little_padding(sizes: list[int], seed: int) -> None:
    reports: list[BatchReport] = []

    @by_clockwork
    async def scenario() -> None:
        device = Device()
        device.automatic = True
        batches = batcher(device, budget=8_000, max_items=16, max_padding=0.1, watch=BatchWatch(reports.append))
        clients = random.Random(seed).choices("abcd", k=len(sizes))
        submits = [submit(batches, Item(f"{number}", size), clients[number]) for number, size in enumerate(sizes)]
        assert await outcomes(submits) == [f"answer to {number}" for number in range(len(sizes))]
        for call in device.calls:
            longest = max(item.size for item in call)
            assert longest * len(call) <= 8_000
            assert 1 - sum(item.size for item in call) / (longest * len(call)) <= 0.1 + 1e-9

    scenario()
    assert sum(report.tokens for report in reports) == sum(sizes)
    assert all(report.computed - report.tokens <= 0.1 * report.computed for report in reports)


@pytest.mark.parametrize("wrong", [{"budget": 0}, {"max_items": 0}, {"slots": 0}, {"queue": -1}])
def test_arguments_that_could_never_serve_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        batcher(Device(), **wrong)


# The queue bound


@by_clockwork
async def test_an_item_over_the_queue_bound_is_refused() -> None:
    device = Device()
    batches = batcher(device, queue=2, max_items=1)
    submits = [submit(batches, name) for name in "abcd"]  # one runs, two wait, one is too many
    await settle()
    with pytest.raises(LimitExceededError) as refused:
        await submits.pop()
    assert (refused.value.reason, refused.value.retry_after) == ("ENGINE_QUEUE_FULL", 1.0)
    assert (batches.state().running, batches.state().waiting) == (1, 2)
    submits.append(submit(batches, "e"))
    submits[1].cancel()  # takes effect only after the other asked for the place
    for _ in range(3):
        await settle()
        await device.end()
    del submits[1]
    assert await outcomes(submits) == ["answer to a", "answer to c", "answer to e"]


@by_clockwork
async def test_a_queue_of_0_serves_as_many_items_as_there_are_slots() -> None:
    device = Device()
    batches = batcher(device, queue=0, slots=2, max_items=8)
    submits = [submit(batches, name) for name in "abc"]
    await settle()
    assert device.names() == [["a"], ["b"]]
    assert await outcome(submits.pop()) == "ENGINE_QUEUE_FULL"
    await device.end()
    await device.end()
    assert await outcomes(submits) == ["answer to a", "answer to b"]


# Deadlines


@by_clockwork
async def test_an_expired_item_is_refused_before_it_is_queued() -> None:
    device = Device()
    batches = batcher(device, queue=0)
    assert await outcome(submit(batches, "late", within=0)) == "DEADLINE_EXPIRED"
    assert not device.calls
    running = submit(batches, "a")
    await settle()
    assert await outcome(submit(batches, "late", within=0)) == "DEADLINE_EXPIRED", "it was queued"
    await device.end()
    await running


@by_clockwork
async def test_an_item_that_expires_leaves_the_queue_and_frees_its_place() -> None:
    device = Device()
    batches = batcher(device, queue=1)
    running = submit(batches, "a")
    await settle()
    waiting = submit(batches, "b", within=5)
    assert await outcome(waiting) == "DEADLINE_EXPIRED"
    assert asyncio.get_running_loop().time() == Clockwork.now + 5
    last = submit(batches, "c", within=50)
    await settle()
    await device.end()
    await device.end()
    assert await outcomes([running, last]) == ["answer to a", "answer to c"]
    assert device.names() == [["a"], ["c"]]


@pytest.mark.parametrize("turns", range(8))
@by_clockwork
async def test_expired_items_do_not_reach_the_device_even_when_timers_are_late(turns: int) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Clockwork)
    device = Device()
    called: list[tuple[str, float]] = []

    async def run(items: Sequence[Item]) -> Sequence[str]:
        called.extend((item.name, loop.now) for item in items)
        return await device(items)

    batches = batcher(run)
    running = submit(batches, "a")
    await settle()
    waiting = [submit(batches, "late", within=5), submit(batches, "in time", within=50)]
    await settle()
    device.running[0][1].set_result(None)
    await loop_turns(turns)
    loop.now += 10  # a blocking call in this turn: timers run in the next
    await settle()
    assert all(at < Clockwork.now + 5 for name, at in called if name == "late")
    while device.running:
        await device.end()
    assert await outcomes([running, waiting[1]]) == ["answer to a", "answer to in time"]
    assert await outcome(waiting[0]) == "DEADLINE_EXPIRED"


@by_clockwork
async def test_a_call_whose_items_all_expired_is_cancelled() -> None:
    device = Device()
    batches = batcher(device)
    submits = [submit(batches, "a", within=1), submit(batches, "b", within=2)]
    assert await outcomes(submits) == ["DEADLINE_EXPIRED"] * 2
    await settle()
    assert [[item.name for item in call] for call in device.cancelled] == [["a", "b"]]
    assert batches.state().running == 0


# Cancellation


@by_clockwork
async def test_cancelled_items_never_reach_the_device() -> None:
    device = Device()
    batches = batcher(device, max_items=2)
    running = submit(batches, "a")
    await settle()
    waiting = [submit(batches, name) for name in "bcde"]
    await settle()
    waiting[0].cancel()
    await settle()
    assert batches.state().waiting == 3
    device.running[0][1].set_result(None)
    waiting[1].cancel()  # in the turn in which the next batch is made
    await settle()
    assert device.names() == [["a"], ["d", "e"]]
    await device.end()
    assert await outcomes([running, *waiting[2:]]) == ["answer to a", "answer to d", "answer to e"]
    assert all(task.cancelled() for task in waiting[:2])


@by_clockwork
async def test_an_item_cancelled_between_its_batch_and_the_call_does_not_reach_the_device() -> None:
    device = Device()
    batches = batcher(device)
    submits = [submit(batches, name) for name in "ab"]
    await until(lambda: batches.state().running == 1)
    submits[0].cancel()
    await settle()
    assert device.names() == [["b"]]
    await device.end()
    assert await outcome(submits[1]) == "answer to b"


@by_clockwork
async def test_a_batch_cancelled_before_its_call_leaves_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    batches = batcher(device)
    submits = [submit(batches, name) for name in "ab"]
    await until(lambda: batches.state().running == 1)
    for task in submits:
        task.cancel()
    await settle()
    assert (device.calls, batches.state().running, batches.state().last_items) == ([], 0, 0)
    assert not caplog.records


@by_clockwork
async def test_an_item_cancelled_while_it_runs_does_not_affect_the_others() -> None:
    device = Device()
    batches = batcher(device)
    submits = [submit(batches, name) for name in "abc"]
    await settle()
    submits[1].cancel()
    await settle()
    assert not device.cancelled
    await device.end()
    assert await outcomes([submits[0], submits[2]]) == ["answer to a", "answer to c"]


@by_clockwork
async def test_an_abandoned_call_is_cancelled_and_its_slot_is_free_when_it_ends() -> None:
    ended = asyncio.Event()
    cancellations = 0

    async def thread(items: Sequence[Item]) -> Sequence[str]:
        nonlocal cancellations
        while not ended.is_set():  # a thread cannot be interrupted
            try:
                await ended.wait()
            except asyncio.CancelledError:
                cancellations += 1
        return answers(items)

    batches = batcher(thread)
    submits = [submit(batches, name) for name in "ab"]
    await settle()
    for task in submits:
        task.cancel()
    last = submit(batches, "c")
    await settle()
    assert cancellations == 1
    assert (batches.state().running, batches.state().waiting) == (1, 1)
    ended.set()
    assert await outcome(last) == "answer to c"


@by_clockwork
async def test_cancelled_calls_do_not_count_as_device_failures() -> None:
    device, canary = Device(), Canary()
    reports: list[BatchReport] = []
    batches = batcher(device, check=canary, watch=BatchWatch(reports.append))
    for _ in range(5):
        task = submit(batches, "a")
        await settle()
        task.cancel()
        await settle()
    assert len(device.cancelled) == 5
    assert not canary.calls
    assert [report.failed for report in reports] == [False] * 5


# Fairness


@by_clockwork
async def test_a_client_with_1000_items_delays_the_first_of_another_by_one_batch() -> None:
    device = Device()
    batches = batcher(device, budget=40)
    flood = [submit(batches, Item(f"flood {number}", 10), "flood") for number in range(1_000)]
    await settle()
    for number in range(3):
        mine = submit(batches, Item(f"mine {number}", 10), f"other {number}")
        await settle()
        await device.end()
        assert device.names()[-1][0] == f"mine {number}"
        await device.end()
        assert await outcome(mine) == f"answer to mine {number}"
    await batches.close()
    await outcomes(flood)


# Memory


@by_clockwork
async def test_a_batch_that_does_not_fit_is_split_by_size_and_run_again() -> None:
    device = Device()
    batches = batcher(device)
    sizes = [30, 10, 10, 10]
    submits = [submit(batches, Item(f"{number}", size)) for number, size in enumerate(sizes)]
    await settle()
    waiting = submit(batches, "later")
    await settle()
    await device.end(DeviceMemoryError())
    assert batches.state().budget == 30
    await device.end()
    await device.end()
    assert sorted(sorted(item.size for item in call) for call in device.calls[1:3]) == [[10, 10, 10], [30]]
    assert await outcomes(submits) == answers([Item(f"{number}") for number in range(4)])
    await device.end()
    assert await outcome(waiting) == "answer to later"


@by_clockwork
async def test_a_single_item_that_does_not_fit_is_refused_and_the_rest_of_its_batch_served() -> None:
    device = Device()
    batches = batcher(device)
    submits = [submit(batches, Item("big", 50)), submit(batches, Item("small", 10))]
    await settle()
    await device.end(DeviceMemoryError())
    while device.running:
        await device.end(DeviceMemoryError() if device.calls[-1][0].name == "big" else None)
    assert await outcomes(submits) == ["ENGINE_OUT_OF_MEMORY", "answer to small"]


@by_clockwork
async def test_the_budget_recovers_after_many_good_batches() -> None:
    device = Device()
    batches = batcher(device, budget=80)
    first = [submit(batches, Item(f"{number}", 40)) for number in range(2)]
    await settle()
    await device.end(DeviceMemoryError())
    assert batches.state().budget == 40
    device.automatic = True
    await device.end()
    await outcomes(first)
    for number in range(4 * 64):
        await outcome(submit(batches, f"{number}"))
        assert batches.state().budget <= 80
    assert batches.state().budget == 80


@by_clockwork
async def test_out_of_memory_does_not_trigger_a_device_check() -> None:
    device, canary = Device(), Canary()
    batches = batcher(device, check=canary)
    for number in range(10):
        one = submit(batches, f"{number}")
        await settle()
        await device.end(DeviceMemoryError())
        assert await outcome(one) == "ENGINE_OUT_OF_MEMORY"
    assert not canary.calls


# Poison


@given(count=st.integers(1, 24), data=st.data())
@settings(max_examples=40)
def test_only_bad_items_fail(count: int, data: st.DataObject) -> None:
    poison = data.draw(st.sets(st.integers(0, count - 1), max_size=4))

    @by_clockwork
    async def scenario() -> None:
        device = Device()
        device.automatic = True
        device.poison = {f"{number}" for number in poison}
        canary = Canary(*[True] * 100)
        batches = batcher(device, check=canary, max_items=32)
        assert await outcomes([submit(batches, f"{number}") for number in range(count)]) == [
            f"poison {number}" if number in poison else f"answer to {number}" for number in range(count)
        ]
        assert batches.state().failed is None
        assert len(device.calls) <= 1 + 2 * len(poison) * count.bit_length()

    scenario()


@by_clockwork
async def test_a_bad_item_gets_its_own_error_and_the_log_no_contents(caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    batches = batcher(device)
    submits = [submit(batches, name) for name in ("a", "secret")]
    await settle()
    await device.end(PoisonError("of both"))
    await device.end()
    error = PoisonError("secret transcript")
    with caplog.at_level(logging.DEBUG):
        await device.end(error)
    with pytest.raises(PoisonError) as raised:
        await submits[1]
    assert raised.value is error
    assert await outcome(submits[0]) == "answer to a"
    assert [record.getMessage() for record in caplog.records] == ["1 of 2 items of a batch failed: PoisonError"]


@pytest.mark.parametrize("results", [["one"], ["one", "two", "three"]])
@by_clockwork
async def test_results_that_do_not_match_the_items_are_discarded(results: list[str]) -> None:
    device = Device()
    batches = batcher(device)
    submits = [submit(batches, name) for name in "ab"]
    await settle()
    await device.end(results=results)
    assert device.names() == [["a", "b"], ["a"]]
    await device.end()
    await device.end(results=["one", "two"])
    assert await outcome(submits[0]) == "answer to a"
    with pytest.raises(RuntimeError, match="2 results for 1 items"):
        await submits[1]


@by_clockwork
async def test_a_run_that_cancels_itself_does_not_look_like_a_cancelled_caller() -> None:
    async def run(_: Sequence[Item]) -> Sequence[str]:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="cancelled itself"):
        await submit(batcher(run), "a")


@by_clockwork
async def test_a_run_that_raises_before_it_awaits_is_no_different() -> None:
    def run(_: Sequence[Item]) -> Awaitable[Sequence[str]]:
        raise PoisonError("at once")

    assert await outcome(submit(batcher(run), "a")) == "poison at once"


@by_clockwork
async def test_a_cancelled_item_of_a_failed_batch_is_not_run_again() -> None:
    device = Device()
    batches = batcher(device)
    submits = [submit(batches, name) for name in "ab"]
    await settle()
    submits[1].cancel()
    await settle()
    await device.end(PoisonError("of both"))
    await device.end()
    assert device.names() == [["a", "b"], ["a"]]
    assert await outcome(submits[0]) == "answer to a"


# Device failures


async def fail(batches: Batcher[Item, str], device: Device, times: int) -> list[asyncio.Task[Done[str]]]:
    submits = []
    for number in range(times):
        submits.append(submit(batches, f"{number}"))
        await settle()
        await device.end(PoisonError(f"{number}"))
    return submits


@by_clockwork
async def test_bad_items_do_not_put_a_device_out_of_service() -> None:
    device, canary = Device(), Canary(True, True)
    batches = batcher(device, check=canary)
    submits = await fail(batches, device, 8)
    assert await outcomes(submits) == [f"poison {number}" for number in range(8)]
    assert len(canary.calls) == 2, "passing resets the count"


@by_clockwork
async def test_a_success_resets_the_count_of_failures() -> None:
    device, canary = Device(), Canary()
    batches = batcher(device, check=canary)
    for _ in range(5):
        bad = await fail(batches, device, 2)
        good = submit(batches, "good")
        await settle()
        await device.end()
        assert await outcomes([*bad, good]) == ["poison 0", "poison 1", "answer to good"]
    assert not canary.calls


@by_clockwork
async def test_a_failing_device_is_out_of_service_until_it_passes() -> None:
    device, canary = Device(), Canary(*[False] * 6, True)
    reports: list[str | None] = []
    batches = batcher(device, check=canary, on_failed=reports.append, max_items=1)
    canary.gate = asyncio.get_running_loop().create_future()
    raw = await fail(batches, device, 2)
    third = submit(batches, "third")
    await settle()
    waiting = submit(batches, "waiting")
    await device.end(PoisonError("third"))
    assert len(canary.calls) == 1
    assert len(device.calls) == 3, "nothing starts during the check"
    assert await outcomes(raw) == ["poison 0", "poison 1"]
    assert not third.done()
    canary.gate.set_result(None)
    with pytest.raises(UnavailableError) as refused:
        await third
    assert (refused.value.reason, refused.value.retry_after) == ("ENGINE_FAILED", 5.0)
    assert refused.value.__cause__ is None
    assert await outcomes([waiting, submit(batches, "new")]) == ["ENGINE_FAILED"] * 2
    assert reports == ["OSError: CUDA error: unspecified launch failure"]
    assert batches.state().failed == reports[0]
    began = asyncio.get_running_loop().time()
    await advance(200)
    assert [at - began for at in canary.calls[1:]] == [1, 3, 7, 15, 31, 63]
    assert reports == ["OSError: CUDA error: unspecified launch failure", None]
    assert batches.state().failed is None
    device.automatic = True
    assert await outcome(submit(batches, "again")) == "answer to again"


@by_clockwork
async def test_a_device_that_fails_in_the_middle_of_a_batch_fails_the_whole_batch() -> None:
    device, canary = Device(), Canary(False)
    batches = batcher(device, check=canary)
    submits = [submit(batches, name) for name in "abcd"]
    await settle()
    for _ in range(3):
        await device.end(PoisonError("CUDA error"))
    assert await outcomes(submits) == ["ENGINE_FAILED"] * 4
    assert device.names() == [["a", "b", "c", "d"], ["a", "b"], ["a"]]
    await batches.close()


@by_clockwork
async def test_slots_share_one_check() -> None:
    device, canary = Device(), Canary(False)
    batches = batcher(device, check=canary, slots=5, max_items=1)
    canary.gate = asyncio.get_running_loop().create_future()
    submits = [submit(batches, name) for name in "abcde"]
    await settle()
    for _ in range(4):
        await device.end(PoisonError("broken"))
    late = submit(batches, "f")
    await settle()
    assert (len(device.calls), batches.state().waiting) == (5, 1), "the check has the device to itself"
    canary.gate.set_result(None)
    await settle()
    assert len(canary.calls) == 1
    assert await outcome(late) == "ENGINE_FAILED"
    await device.end()
    assert await outcomes(submits) == ["poison broken", "poison broken", "ENGINE_FAILED", "ENGINE_FAILED", "answer to e"]
    await batches.close()


@by_clockwork
async def test_a_check_that_cancels_itself_has_failed() -> None:
    device = Device()
    verdicts = [asyncio.CancelledError(), asyncio.CancelledError(), None]

    async def check() -> None:
        if (error := verdicts.pop(0)) is not None:
            raise error

    batches = batcher(device, check=check)
    await fail(batches, device, 3)
    assert batches.state().failed == "the check cancelled itself"
    await advance(30)
    assert batches.state().failed is None


@by_clockwork
async def test_without_a_check_the_device_stays_in_service() -> None:
    device = Device()
    batches = batcher(device)
    assert await outcomes(await fail(batches, device, 6)) == [f"poison {number}" for number in range(6)]


# Closing


@by_clockwork
async def test_close_ends_everything_and_refuses_every_caller() -> None:
    device = Device()
    batches = batcher(device, max_items=1)
    submits = [submit(batches, name) for name in "abc"]
    await settle()
    await asyncio.gather(batches.close(), batches.close())
    await batches.close()
    assert await outcomes([*submits, submit(batches, "d")]) == ["ENGINE_UNAVAILABLE"] * 4
    assert len(device.cancelled) == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


@by_clockwork
async def test_close_in_the_middle_of_a_split_batch() -> None:
    device = Device()
    batches = batcher(device)
    submits = [submit(batches, name) for name in "abcd"]
    await settle()
    await device.end(PoisonError("of four"))
    await batches.close()
    assert await outcomes(submits) == ["ENGINE_UNAVAILABLE"] * 4
    assert len(device.calls) == 2
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("checking", [True, False])
@by_clockwork
async def test_close_ends_check_and_recovery(checking: bool) -> None:
    device, canary = Device(), Canary(False)
    reports: list[str | None] = []
    batches = batcher(device, check=canary, on_failed=reports.append)
    if checking:
        canary.gate = asyncio.get_running_loop().create_future()
    submits = await fail(batches, device, 3)
    await batches.close()
    assert await outcome(submits[2]) == ("ENGINE_UNAVAILABLE" if checking else "ENGINE_FAILED")
    assert len(reports) == (0 if checking else 1), "a check cut short is no verdict"
    await outcomes(submits)
    assert asyncio.all_tasks() == {asyncio.current_task()}


# Reports


@by_clockwork
async def test_every_call_is_reported() -> None:
    device = Device()
    reports: list[BatchReport] = []
    batches = batcher(device, max_padding=0.1, watch=BatchWatch(reports.append))
    submits = [submit(batches, Item("a", 20)), submit(batches, Item("b", 19))]
    await settle()
    await advance(2)
    await device.end(PoisonError("of both"))
    await advance(1)
    await device.end()
    await device.end()
    assert reports == [
        BatchReport(2, 39, 40, 2.0, 0.0, failed=True),
        BatchReport(1, 20, 20, 1.0, 2.0, failed=False),
        BatchReport(1, 19, 19, 0.0, 3.0, failed=False),
    ]
    assert [((await task).queued, (await task).busy) for task in submits] == [(0, 3), (1, 2)]


@by_clockwork
async def test_state_is_a_snapshot_of_queue_and_batches() -> None:
    device = Device()
    batches = batcher(device, max_padding=0.1, max_items=2)
    empty = batches.state()
    assert (empty.waiting, empty.oldest_wait, empty.last_items, empty.last_padding, empty.failed) == (0, 0, 0, 0, None)
    submits = [submit(batches, Item(f"{number}", 18 + number), f"{number % 3}") for number in range(5)]
    await settle()
    await advance(4)
    state = batches.state()
    assert (state.waiting, state.waiting_tokens, state.oldest_wait) == (3, 20 + 21 + 22, 4)
    assert (state.running, state.clients, state.budget) == (1, 3, 100)
    await device.end()
    assert (batches.state().last_items, round(batches.state().last_padding, 6)) == (2, round(1 / 38, 6))
    await batches.close()
    await outcomes(submits)


@by_clockwork
async def test_a_failing_observer_does_not_fail_the_batch() -> None:
    def failing(_: object) -> None:
        raise LookupError

    device, canary = Device(), Canary(False, True)
    batches = batcher(device, check=canary, watch=BatchWatch(failing), on_failed=failing)
    await fail(batches, device, 3)
    await advance(10)
    device.automatic = True
    assert await outcome(submit(batches, "a")) == "answer to a"


# Any order of events

STEPS = st.one_of(
    st.tuples(st.just("submit"), st.integers(0, 3), st.integers(1, 60), st.sampled_from([None, None, 1, 5])),
    st.tuples(st.just("submit"), st.integers(0, 3), st.integers(1, 60), st.sampled_from([None, None, 1, 5])),
    st.tuples(st.just("cancel"), st.integers(0, 200)),
    st.tuples(st.just("end"), st.integers(0, 3), st.sampled_from(["well", "well", "well", "raise", "memory", "short"])),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 3.0, 20.0])),
    st.tuples(st.just("settle")),
)


@given(
    steps=st.lists(STEPS, max_size=80),
    slots=st.integers(1, 3),
    max_items=st.integers(1, 5),
    queue=st.integers(0, 12),
    padded=st.booleans(),
    verdicts=st.lists(st.booleans(), max_size=6),
    closes=st.booleans(),
)
@settings(max_examples=250)
def test_whatever_happens_every_item_ends_once_with_its_own_answer(
    steps: list[tuple[Any, ...]], slots: int, max_items: int, queue: int, padded: bool, verdicts: list[bool], closes: bool
) -> None:
    @by_clockwork
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        submits: dict[str, asyncio.Task[Done[str]]] = {}
        deadlines: dict[str, float | None] = {}
        device = Device()
        served: set[str] = set()

        broken: list[str] = []

        async def run(items: Sequence[Item]) -> Sequence[str]:
            try:
                judge(items)
            except AssertionError as error:
                broken.append(f"{error}")
            results = await device(items)
            if len(results) == len(items):
                served.update(item.name for item in items)
            return results

        def judge(items: Sequence[Item]) -> None:
            assert items
            for item in items:
                deadline = deadlines[item.name]
                assert deadline is None or loop.time() < deadline, "expired"
                assert not submits[item.name].cancelling(), "cancelled"
                assert not submits[item.name].done(), "answered already"
                assert item.name not in served, "served twice"
                assert all(item not in batch for batch, _ in device.running), "in two calls at once"
            sizes = [item.size for item in items]
            assert len(items) <= max_items
            assert len(items) == 1 or (max(sizes) * len(items) if padded else sum(sizes)) <= 100
            assert len(device.running) < slots

        canary = Canary(*verdicts, *[True] * 50)
        loop.set_exception_handler(lambda _, context: broken.append(f"{context}"))
        batches = batcher(run, slots=slots, max_items=max_items, queue=queue, max_padding=0.1 if padded else None, check=canary)
        for step in steps:
            match step:
                case ["submit", client, size, within]:
                    name = f"{len(submits)}"
                    deadlines[name] = None if within is None else loop.time() + within
                    submits[name] = submit(batches, Item(name, size), f"{client}", within)
                case ["cancel", which] if submits:
                    submits[f"{which % len(submits)}"].cancel()
                case ["end", slot, how] if device.running:
                    _, end = device.running[slot % len(device.running)]
                    if not end.done():
                        match how:
                            case "well":
                                end.set_result(None)
                            case "short":
                                end.set_result(["one", "two", "three", "four", "five", "six"])
                            case "raise":
                                end.set_exception(PoisonError("of the batch"))
                            case "memory":
                                end.set_exception(DeviceMemoryError())
                case ["wait", seconds]:
                    await advance(seconds)
                case ["settle"]:
                    await settle()
            state = batches.state()
            assert state.waiting <= queue
            assert state.running <= slots
            assert 1 <= state.budget <= 100
            if step[0] == "settle" and state.failed is None:
                assert state.running == slots or not state.waiting, "a slot is idle and items wait"
        await settle()
        if closes:
            await batches.close()
        while device.running:
            await device.end()
        for name, task in submits.items():
            assert task.done(), "left hanging"
            if task.cancelled():
                continue
            match task.exception():
                case None:
                    assert task.result().result == f"answer to {name}"
                    assert name in served
                    assert task.result().queued >= 0
                case AlignerError() as error:
                    assert (error.reason == "DEADLINE_EXPIRED") <= (deadlines[name] is not None)
                    assert (error.reason == "ENGINE_UNAVAILABLE") <= closes
                case error:
                    assert isinstance(error, PoisonError | RuntimeError), error
        state = batches.state()
        assert (state.waiting, state.waiting_tokens, state.running, state.clients) == (0, 0, 0, 0)
        await batches.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not broken

    scenario()
