"""The time that a request may take to arrive: what is too slow, what is not, and what ends the wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import pytest
from grpc import aio

from interceptors import Recovery, RequestId, Requests
from interceptors.calls.refusal import CallRefusedError
from interceptors.handlers.pace import LEAST_MESSAGE, Pace, ReadTimes
from tests.kit.chain_server import SERVICE, KindsHandler, chain_server
from tests.kit.refusals import check, refusal
from tests.kit.waiting import forever, loop_turns

INVALID = grpc.StatusCode.INVALID_ARGUMENT
TIMES = ReadTimes(unary=60.0, idle=60.0, least_rate=1024.0, longest=18_000.0)


class Client:
    """Sends to a Pace, on a clock that only it moves."""

    def __init__(self, monkeypatch, times: ReadTimes = TIMES, *, whole: bool = False) -> None:
        self.time = 0.0
        self.pace = Pace(times, whole=whole)
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: self.time)

    async def send(self, size: int, after: float) -> None:
        """A message that is waited for `after` seconds."""
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        reading = asyncio.create_task(self.pace.read(lambda: arrived))
        await loop_turns(2)
        self.time += after
        await loop_turns(3)
        if not reading.done():
            arrived.set_result(None)
        await reading
        self.pace.received(size)


async def ended(client: Client, size: int, every: float) -> tuple[str, float]:
    """The reason for which a client that sends `size` bytes again and again is refused, and after how many seconds."""
    try:
        for _ in range(100_000):
            await client.send(size, every)
    except CallRefusedError as refused:
        return refused.reason, client.time
    raise AssertionError("it was never refused")


@pytest.mark.parametrize(
    ("size", "every", "reason", "earliest", "latest"),
    [
        (1, 30.0, "UPLOAD_TOO_SLOW", 60, 91),
        (1, 5.0, "UPLOAD_TOO_SLOW", 60, 80),
        (1, 1.0, "UPLOAD_TOO_SLOW", 60, 125),
        (1000, 1.0, "UPLOAD_TOO_SLOW", 1000, 3000),
        (1 << 20, 61.0, "STREAM_IDLE", 60, 62),
    ],
)
async def test_a_stream_below_the_least_rate_is_ended(monkeypatch, size, every, reason, earliest, latest) -> None:
    found, after = await ended(Client(monkeypatch), size, every)
    assert found == reason
    assert earliest <= after <= latest


async def test_a_fast_beginning_buys_no_slow_end(monkeypatch) -> None:
    client = Client(monkeypatch)
    for _ in range(100):
        await client.send(1 << 20, 0.01)
    reason, after = await ended(client, 1, 10.0)
    assert (reason, after < 90) == ("UPLOAD_TOO_SLOW", True)


@pytest.mark.parametrize(
    ("size", "every"),
    [(1030, 1.0), (190, 0.25), (LEAST_MESSAGE, 0.5), (64 * 1024, 59.0)],
    ids=["1 KiB/s", "speech at 6 kbit/s", "two messages a second", "in bursts"],
)
async def test_live_streams_may_go_on(monkeypatch, size, every) -> None:
    client = Client(monkeypatch)
    for _ in range(300):
        await client.send(size, every)


async def test_a_whole_upload_has_a_time(monkeypatch) -> None:
    reason, after = await ended(Client(monkeypatch, replace(TIMES, longest=100.0)), 1 << 20, 1.0)
    assert (reason, round(after)) == ("UPLOAD_TOO_SLOW", 100)


async def test_a_unary_request_has_a_time_of_its_own(monkeypatch) -> None:
    reason, after = await ended(Client(monkeypatch, replace(TIMES, unary=10.0), whole=True), 0, 11.0)
    assert (reason, after) == ("UPLOAD_TOO_SLOW", 11.0)


async def test_a_rate_of_zero_asks_for_none(monkeypatch) -> None:
    client = Client(monkeypatch, replace(TIMES, least_rate=0.0))
    for _ in range(300):
        await client.send(1, 50.0)


async def test_ending_it_refuses_the_wait_at_once_and_every_further_one() -> None:
    pace, error = Pace(TIMES, whole=False), CallRefusedError(grpc.StatusCode.UNAVAILABLE, "GO", "go")
    reading = asyncio.create_task(pace.read(forever))
    await loop_turns(2)
    pace.end(error)
    for attempt in (reading, pace.read(loop_turns)):
        with pytest.raises(CallRefusedError) as raised:
            await attempt
        assert raised.value is error


@pytest.mark.parametrize("kind", ["UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream"])
async def test_every_kind_of_call_that_sends_nothing_is_ended(kind) -> None:
    times = ReadTimes(unary=0.1, idle=0.1)
    async with chain_server((Recovery("aligner"), RequestId(), Requests(times=times)), KindsHandler()) as server:
        streams = kind.endswith("Stream")
        path = f"/{SERVICE}/{kind}"
        call = (server.channel.stream_stream if streams else server.channel.stream_unary)(path)()
        with pytest.raises(aio.AioRpcError) as error:
            await (call.read() if streams else call)
    reason = "UPLOAD_TOO_SLOW" if kind.startswith("Unary") else "STREAM_IDLE"
    check(refusal(error.value), INVALID, reason, "payload")
