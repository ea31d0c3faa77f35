"""The server's side of its Ray client: calls, their end, and what it says of the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aligner_svc.engines.ray_serve.link import Link
from aligner_svc.errors import LimitExceededError
from aligner_svc.workers import WorkerTimeoutError, WorkerUnavailableError
from tests.kit.waiting import eventually

Reports = list[str | None]


@pytest.fixture
def reports() -> Reports:
    return []


@pytest.fixture
async def link(tmp_path: Path, reports: Reports) -> AsyncIterator[Link]:
    made = Link((str(tmp_path),), {}, 8, reports.append, module="tests.kit.ray_client")
    assert await made.start(30)
    yield made
    await made.close()


async def call(link: Link, lane: str, seconds: float | None = 30.0) -> tuple[dict[str, object], bytes]:
    reply = await link.call(lane, {"x": [1]}, b"abc", seconds=seconds, client="me")
    return reply.header, bytes(reply.payload)


async def test_many_calls_at_a_time_each_get_their_own_answer(link: Link) -> None:
    async def one(number: int) -> None:
        reply = await link.call("echo", {"n": number}, b"%d" % number, seconds=9.0, client=f"c{number}")
        assert (reply.header["n"], reply.header["client"]) == (number, f"c{number}")
        assert bytes(reply.payload) == (b"%d" % number)[::-1]
        assert 0 < float(str(reply.header["left"])) <= 9
        assert reply.busy == 0.25

    await asyncio.gather(*(one(number) for number in range(50)))


async def test_a_refusal_arrives_as_it_was_raised(link: Link) -> None:
    with pytest.raises(LimitExceededError) as refused:
        await call(link, "refuse")
    assert (refused.value.reason, refused.value.retry_after) == ("ENGINE_QUEUE_FULL", 2.0)


async def test_a_call_that_no_replica_answers_is_unavailable(link: Link) -> None:
    with pytest.raises(WorkerUnavailableError):
        await call(link, "lose")


@pytest.mark.parametrize("end", ["deadline", "cancelled"])
async def test_a_call_that_ends_here_ends_at_the_replica(link: Link, tmp_path: Path, end: str) -> None:
    task = asyncio.create_task(call(link, "hang", 0.5 if end == "deadline" else 30.0))
    await eventually((tmp_path / "hanging").exists)
    if end == "cancelled":
        task.cancel()
    with pytest.raises((WorkerTimeoutError, asyncio.CancelledError)):
        await task
    await eventually((tmp_path / "cancelled").exists)


async def test_a_call_whose_client_dies_is_given_to_the_next_one(link: Link, reports: Reports) -> None:
    assert (await call(link, "die"))[1] == b"cba"
    assert reports[0] is None
    assert reports[1] is not None
    assert reports[2] is None


async def test_without_a_cluster_calls_end_early_and_are_served_when_it_is_back(
    link: Link, reports: Reports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aligner_svc.engines.ray_serve.link._PATIENCE", 0.2)
    (tmp_path / "gone").touch()
    await eventually(lambda: link.why_not is not None)
    assert reports[-1] is not None
    with pytest.raises(WorkerUnavailableError):
        await asyncio.wait_for(call(link, "echo", 30.0), 5.0)
    (tmp_path / "gone").unlink()
    await eventually(lambda: link.why_not is None)
    assert (await call(link, "echo"))[1] == b"cba"
    assert reports[-1] is None


async def test_closing_ends_calls(link: Link, tmp_path: Path) -> None:
    task = asyncio.create_task(call(link, "hang"))
    await eventually((tmp_path / "hanging").exists)
    await link.close()
    with pytest.raises(WorkerUnavailableError):
        await asyncio.wait_for(task, 5.0)
