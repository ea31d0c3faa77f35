"""Processes for other languages start with the first call that needs them."""

from __future__ import annotations

import asyncio

import pytest

from aligner_svc.engines.pocketsphinx.languages.started import Started
from aligner_svc.workers import WorkerDiedError
from tests.kit.waiting import eventually, loop_turns


class FakeQueue:
    """Also its own pool."""

    def __init__(self, *, works: bool = True) -> None:
        self.pool = self
        self.works = works
        self.closed = False
        self.go = asyncio.Event()

    async def start(self) -> None:
        await self.go.wait()
        if not self.works:
            raise WorkerDiedError("no memory")

    async def close(self) -> None:
        self.closed = True


async def test_all_calls_wait_for_one_start_and_one_that_gives_up_does_not_end_it() -> None:
    made: list[FakeQueue] = []

    def make() -> FakeQueue:
        made.append(FakeQueue())
        return made[-1]

    started = Started(make)  # type: ignore[arg-type]
    assert (made, started.running) == ([], None)
    calls = [asyncio.create_task(started.get()) for _ in range(3)]
    await eventually(lambda: len(made) == 1)
    calls[0].cancel()
    made[0].go.set()
    assert await asyncio.gather(*calls[1:]) == [made[0]] * 2
    assert await started.get() is made[0]
    assert len(made) == 1
    await started.close()
    assert made[0].closed


async def test_after_a_start_that_failed_the_next_call_tries_again() -> None:
    made = [FakeQueue(works=False), FakeQueue()]
    for queue in made:
        queue.go.set()
    coming = iter(made)
    started = Started(lambda: next(coming))  # type: ignore[arg-type,return-value]
    with pytest.raises(WorkerDiedError):
        await started.get()
    assert made[0].closed
    assert await started.get() is made[1]


async def test_what_starts_while_the_server_closes_is_closed_too() -> None:
    queue = FakeQueue()
    started = Started(lambda: queue)  # type: ignore[arg-type,return-value]
    call = asyncio.create_task(started.get())
    await loop_turns()
    closing = asyncio.create_task(started.close())
    queue.go.set()
    await asyncio.gather(call, closing)
    assert queue.closed
