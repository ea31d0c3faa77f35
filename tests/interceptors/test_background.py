"""Background tasks run until they end or are closed, and log their failures."""

from __future__ import annotations

import asyncio

import pytest

from interceptors.background import BackgroundTask


class Work:
    """Counts its runs; each goes on until it is released, or fails."""

    def __init__(self, *, fails: int = 0) -> None:
        self.runs = 0
        self.cancelled = 0
        self.began = asyncio.Event()
        self.release = asyncio.Event()
        self._fails = fails

    async def __call__(self) -> None:
        self.runs += 1
        self.began.set()
        if self.runs <= self._fails:
            raise ValueError("broken")
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def begun(self) -> None:
        async with asyncio.timeout(10):
            await self.began.wait()
        self.began.clear()


async def test_work_runs_from_start_to_close():
    work = Work()
    task = BackgroundTask("the work", work)
    assert not task.running
    task.start()
    await work.begun()
    assert task.running
    await task.close()
    assert not task.running
    assert (work.runs, work.cancelled) == (1, 1)


async def test_closing_twice_or_before_the_start_does_nothing():
    task = BackgroundTask("the work", Work())
    await task.close()
    await task.close()


async def test_close_waits_until_the_work_has_cleaned_up():
    cleaned = []

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.to_thread(cleaned.append, True)

    began = asyncio.Event()
    task = BackgroundTask("the work", work)
    task.start()
    await began.wait()
    await task.close()
    assert cleaned == [True]


async def test_a_start_while_the_work_is_running_does_nothing():
    work = Work()
    task = BackgroundTask("the work", work)
    task.start()
    task.start()
    await work.begun()
    assert work.runs == 1
    await task.close()


async def test_work_that_has_ended_can_be_started_again():
    work = Work()
    work.release.set()
    task = BackgroundTask("the work", work)
    for runs in (1, 2):
        task.start()
        await task.wait()
        assert (work.runs, task.running) == (runs, False)


async def test_nothing_starts_after_close():
    work = Work()
    task = BackgroundTask("the work", work)
    await task.close()
    task.start()
    await task.wait()
    assert work.runs == 0


async def test_a_failure_is_logged_with_its_traceback(caplog):
    task = BackgroundTask("the work", Work(fails=1))
    task.start()
    await task.wait()
    await task.close()
    (line,) = caplog.records
    assert line.getMessage() == "the work failed"
    assert line.exc_info is not None
    assert str(line.exc_info[1]) == "broken"


async def test_repeated_work_goes_on_after_a_failure(caplog):
    work = Work(fails=2)
    task = BackgroundTask("the work", work, every=0.0)
    task.start()
    while work.runs < 3:
        await work.begun()
    await task.close()
    assert [line.getMessage() for line in caplog.records] == ["the work failed"] * 2
    assert work.cancelled == 1


async def test_repeated_work_runs_first_after_one_interval():
    work = Work()
    task = BackgroundTask("the work", work, every=3600.0)
    task.start()
    await task.wait(0.01)
    assert (work.runs, task.running) == (0, True)
    await task.close()


async def test_a_wait_that_is_cancelled_leaves_the_work_running():
    work = Work()
    task = BackgroundTask("the work", work)
    task.start()
    await work.begun()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await task.wait()
    assert task.running
    work.release.set()
    await task.wait()
    assert work.cancelled == 0
