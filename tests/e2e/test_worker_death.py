"""Worker processes that are killed or hang: the calls they were at are answered all the same, the others notice nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.workers import heartbeat
from aligner_svc.workers.pool import WorkerPool
from tests.kit.recordings import SPEECH, TRANSCRIPT, repeated
from tests.kit.refusals import check, refusal
from tests.kit.servers import calling, serving
from tests.kit.waiting import eventually


@pytest.fixture(scope="module")
def workers() -> int:
    return 2


def request(audio: bytes = SPEECH, transcript: str = TRANSCRIPT) -> pb.AlignRequest:
    return pb.AlignRequest(config=pb.AlignConfig(transcript=transcript, language="en"), audio=audio)


@asynccontextmanager
async def stopped(pool: WorkerPool) -> AsyncIterator[list[int]]:
    """The pool's processes, held still so that what they are given stays with them."""
    pids = pool.pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield pids
    finally:
        for pid in pids:
            if pid in pool.pids:
                os.kill(pid, signal.SIGCONT)


async def whole(pool: WorkerPool, without: int) -> None:
    await eventually(lambda: len(pool.pids) == pool.size and without not in pool.pids, "the pool to be whole again")


def pool_of(server, name: str) -> WorkerPool:
    return {"engine": server.engine.short, "decoder": server.decoder}[name].pool


def _queued(server, name: str) -> int:
    return server.engine.short.batcher.state().waiting if name == "engine" else server.decoder.pool.waiting


@pytest.mark.parametrize("name", ["engine", "decoder"])
async def test_a_call_outlives_the_process_it_is_given_to(server, stub, name, monkeypatch):
    """Every process is held, so that the calls lie with them; one is killed, and the others go on."""
    monkeypatch.setattr(heartbeat, "read", lambda pid: None)
    pool = pool_of(server, name)
    expected = (await stub.Align(request())).words
    restarts = pool.restarts
    async with stopped(pool) as pids:
        calls = [asyncio.create_task(_align(stub)) for _ in range(pool.size + 1)]
        await eventually(lambda: _queued(server, name) == 1, "a call for every process, and one in the queue")
        os.kill(pids[0], signal.SIGKILL)
    assert [response.words for response in await asyncio.gather(*calls)] == [expected] * len(calls)
    await whole(pool, pids[0])
    assert pool.restarts == restarts + 1


@pytest.mark.parametrize("name", ["engine", "decoder"])
async def test_calls_outlive_all_processes_when_these_hang(server, stub, name):
    """As after SIGSTOP, or in a deadlock: nobody continues them."""
    pool = pool_of(server, name)
    expected = (await stub.Align(request())).words
    hung = pool.pids
    for pid in hung:
        os.kill(pid, signal.SIGSTOP)
    calls = [asyncio.create_task(_align(stub)) for _ in range(pool.size + 1)]
    assert [response.words for response in await asyncio.gather(*calls)] == [expected] * len(calls)
    await eventually(lambda: len(pool.pids) == pool.size and not set(pool.pids) & set(hung), "the pool to be whole again")


async def test_killed_at_work_on_a_long_recording(server, stub):
    """The answer is the one of an undisturbed call, and so is that of the call beside it."""
    pool = server.engine.short.pool
    long = request(*repeated(6))
    expected = [(await stub.Align(message)).words for message in (long, request())]
    restarts = pool.restarts
    before = _ticks(pool)
    calls = [asyncio.create_task(_align(stub, message)) for message in (long, request())]
    killed = await _kill_a_busy_one(pool, before)
    assert [response.words for response in await asyncio.gather(*calls)] == expected
    await whole(pool, killed)
    assert pool.restarts == restarts + 1


async def _kill_a_busy_one(pool: WorkerPool, before: dict[int, int]) -> int:
    """Kill the first process that is seen to have used processor time since."""

    def busy() -> list[int]:
        return [pid for pid, ticks in _ticks(pool).items() if ticks > before.get(pid, ticks) + 1]

    await eventually(lambda: bool(busy()), "a process to be at work")
    victim = busy()[0]
    os.kill(victim, signal.SIGKILL)
    return victim


def _ticks(pool: WorkerPool) -> dict[int, int]:
    """Processor time of every process so far, user and system, in hundredths of a second."""
    fields = {pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pool.pids}
    return {pid: int(values[11]) + int(values[12]) for pid, values in fields.items()}


@pytest.mark.parametrize("name", ["engine", "decoder"])
async def test_killed_while_idle(server, stub, name):
    pool = pool_of(server, name)
    expected = (await stub.Align(request())).words
    victim = pool.pids[0]
    os.kill(victim, signal.SIGKILL)
    assert (await stub.Align(request())).words == expected
    await whole(pool, victim)


async def test_a_call_that_kills_its_process_twice_is_given_back():
    """No other call is affected, and the refusal carries a time to retry."""
    async with serving(workers=1) as server, calling(server.address) as stub:
        pool = server.engine.short.pool
        long = request(*repeated(4))
        before = _ticks(pool)
        call = asyncio.create_task(_align(stub, long))
        for _ in range(2):
            victim = await _kill_a_busy_one(pool, before)
            await eventually(lambda victim=victim: bool(set(pool.pids) - {victim}), "another in its place")
            before = _ticks(pool)
        with pytest.raises(grpc.RpcError) as error:
            await call
        reported = refusal(error.value)
        check(reported, grpc.StatusCode.UNAVAILABLE, "ENGINE_UNAVAILABLE", None)
        assert reported.retry_seconds == 1.0
        assert (await stub.Align(request())).words
        await whole(pool, victim)


async def _align(stub, message: pb.AlignRequest | None = None) -> pb.AlignResponse:
    return await stub.Align(message or request())
