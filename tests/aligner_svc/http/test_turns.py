"""What begins in a round of the event loop is bounded, and nobody is passed over."""

from __future__ import annotations

import asyncio

from aligner_svc.http.turns import Turns


async def test_two_begin_in_each_round_in_their_order() -> None:
    turns, began = Turns(2), list[int]()

    async def one(number: int) -> None:
        await turns.take()
        began.append(number)

    tasks = [asyncio.create_task(one(number)) for number in range(9)]
    await asyncio.sleep(0)
    tasks[5].cancel()  # a client that leaves while it waits costs the others nothing
    counts = [len(began)]
    while len(began) < 8:
        await asyncio.sleep(0)
        counts.append(len(began))
    assert began == [0, 1, 2, 3, 4, 6, 7, 8]
    assert max(after - before for before, after in zip([0, *counts], counts, strict=False)) == 2


async def test_one_that_is_alone_does_not_wait() -> None:
    turns = Turns(1)
    for _ in range(3):
        async with asyncio.timeout(0):
            await turns.take()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
