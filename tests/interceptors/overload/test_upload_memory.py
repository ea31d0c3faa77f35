"""The memory of uploads: shares of callers, the reserve that ends every standstill, and what is left when calls end."""

from __future__ import annotations

import asyncio
import random

import pytest

from interceptors.overload.upload_memory import Held, UploadMemory
from tests.kit.waiting import loop_turns


class Bench(UploadMemory):
    """100 bytes by shares and a reserve of 40."""

    def __init__(self) -> None:
        super().__init__(shared=100, reserve=40)

    async def try_take(self, held: Held, size: int) -> asyncio.Task[None]:
        """The `take`, done if there was room."""
        task = asyncio.create_task(self.take(held, size))
        await loop_turns(2)
        return task


async def test_a_caller_alone_gets_half_and_leaves_half_to_the_next() -> None:
    memory, a, b = Bench(), Held("a"), Held("b")
    reserved = Held("a")
    assert (await memory.try_take(a, 50)).done()
    assert (await memory.try_take(reserved, 1)).done()  # beyond the share: the reserve
    held_back = await memory.try_take(a, 1)
    assert not held_back.done()
    assert (await memory.try_take(b, 25)).done()
    assert memory.used == 76
    memory.release(a)
    await loop_turns(2)
    assert held_back.done()


async def test_the_first_upload_beyond_its_share_can_be_completed_whatever_the_others_hold() -> None:
    memory = Bench()
    uploads = [Held(name) for name in "aabbccdd"]
    waiting = [await memory.try_take(held, 25) for held in uploads]
    first = next(held for held, task in zip(uploads, waiting, strict=True) if task.done() and held is memory._first)
    assert (await memory.try_take(first, 15)).done()
    assert memory.used <= 140


async def test_the_reserve_goes_round_the_callers() -> None:
    memory = Bench()
    greedy, other = [Held("greedy") for _ in range(4)], Held("other")
    await memory.try_take(greedy[0], 50)
    assert (await memory.try_take(greedy[1], 10)).done()  # has the reserve
    await memory.try_take(greedy[2], 10)
    await memory.try_take(other, 20)
    waiting = await memory.try_take(other, 20)
    assert not waiting.done()
    memory.release(greedy[1])
    await loop_turns(2)
    assert waiting.done()


async def test_a_cancelled_wait_leaves_nothing_and_lets_the_next_go_on() -> None:
    memory, a, b = Bench(), Held("a"), Held("a")
    await memory.try_take(a, 50)
    await memory.try_take(Held("a"), 1)
    first, second = await memory.try_take(b, 30), await memory.try_take(Held("a"), 20)
    first.cancel()
    memory.release(b)
    memory.release(a)
    await loop_turns(3)
    assert second.done()
    assert (memory.waiting, memory.used) == (0, 21)


@pytest.mark.parametrize("seed", range(20))
async def test_every_upload_is_completed_and_the_bounds_hold(seed) -> None:
    """Forty uploads of four callers, each of up to the largest size, in pieces, some of them abandoned."""
    chance, memory = random.Random(seed), Bench()
    completed = 0

    async def upload(owner: str, size: int, leaves_at: int) -> None:
        nonlocal completed
        held = Held(owner)
        try:
            while held.size < size:
                await memory.take(held, min(chance.randint(1, 10), size - held.size))
                assert memory.used <= 140
                assert memory._used <= 100
                await loop_turns(chance.randint(0, 3))
                if held.size >= leaves_at:
                    return
            await loop_turns(chance.randint(0, 9))
        finally:
            memory.release(held)
            completed += 1

    async with asyncio.timeout(30):
        sizes = [(chance.choice("abcd"), chance.randint(1, 40), chance.choice([15, 99])) for _ in range(40)]
        await asyncio.gather(*(upload(*each) for each in sizes))
    assert completed == 40
    assert (memory.used, memory.waiting, memory._by_owner) == (0, 0, {})
