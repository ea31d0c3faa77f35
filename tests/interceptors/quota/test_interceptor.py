"""What a call is charged in the end, however it ends: what it used, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc import aio

from interceptors import CallRefusedError, Quota, Recovery, RequestId, Requests, current_call
from interceptors.quota.classes_text import parse
from interceptors.quota.meter import STEP_BYTES, CallMeter
from interceptors.quota.stores.memory import MemoryStore
from tests.kit.chain_server import SERVICE, KindsHandler, answer, chain_server, start
from tests.kit.waiting import eventually, loop_turns

QUOTAS = """\
[classes.default]
requests_per_second = 100
audio_seconds_per_minute = 100
bytes_per_minute = 10000000
calls_in_flight = 9
"""
SUBJECT = "peer:127.0.0.1"


class SlowStore(MemoryStore):
    """Answers as a store on a network does: later, while the caller may be cancelled."""

    waits = True

    def __init__(self) -> None:
        super().__init__(clock=lambda: 1000.0)  # nothing is refilled
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Semaphore(0)
        self.taken = 0

    async def take(self, *arguments):
        self.taken += 1
        return await super().take(*arguments)

    async def _asked(self) -> None:
        self.asked.release()
        await loop_turns(2)
        await self.gate.wait()

    async def charge(self, *arguments):
        granted = await super().charge(*arguments)
        await self._asked()
        return granted

    async def settle(self, *arguments):
        await super().settle(*arguments)
        await self._asked()

    async def finish(self, *arguments):
        await self._asked()
        await super().finish(*arguments)

    async def release(self, *arguments):
        await self._asked()
        await super().release(*arguments)


class Decoding(KindsHandler):
    """Takes every request for so many seconds of audio, and ends as told."""

    seconds = 0.0
    text = 0.0
    error: Exception | None = None

    async def act(self, request, context) -> bytes:
        call = current_call()
        assert call is not None
        assert call.meter is not None
        if self.text:
            await call.meter.text(self.text)
        if self.seconds:
            await call.meter.decoded(self.seconds)
        if self.error is not None:
            raise self.error
        return b""


class Bench:
    """A message holds a second of audio for every 64 KiB."""

    def __init__(self) -> None:
        self.store, self.kinds, self.classes = SlowStore(), Decoding(), parse(QUOTAS, "quotas.toml")
        streams = {f"/{SERVICE}/StreamUnary"}
        self.quota = Quota(
            self.store, lambda: self.classes, estimate=lambda: lambda message: len(message) / 65_536, streams=streams, exempt=()
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[aio.Channel]:
        async with chain_server((Recovery("test"), RequestId(), self.quota, Requests()), self.kinds) as server:
            yield server.channel
            await self.quota.close()

    async def used(self) -> tuple[int, int, int, int]:
        """Requests, seconds of audio, bytes, and slots in use."""
        quota = self.classes.classes["default"]
        left = (await self.store.show(SUBJECT, quota.buckets, quota.slots(stream=False))).remaining
        of = {"requests_per_second": 100, "audio_seconds_per_minute": 100, "bytes_per_minute": 1e7, "calls_in_flight": 9}
        return tuple(round(most - left[name]) for name, most in of.items())

    async def settled(self, *expected: int) -> None:
        await self.quota.close()
        assert await self.used() == expected


def unavailable(reason: str) -> CallRefusedError:
    return CallRefusedError(grpc.StatusCode.UNAVAILABLE, reason, "not now", retry_after=1.0)


@pytest.mark.parametrize(
    ("error", "requests", "audio"),
    [
        (None, 1, 7),
        (unavailable("ENGINE_UNAVAILABLE"), 0, 0),  # the server's fault
        (unavailable("DEADLINE_UNREACHABLE"), 1, 7),  # the client's own deadline
        (CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "TRANSCRIPT_TOO_DENSE", "too many words"), 1, 7),
    ],
    ids=["served", "unavailable", "its deadline was too short", "invalid"],
)
@pytest.mark.parametrize("kind", ["UnaryUnary", "StreamUnary"])
async def test_a_call_is_charged_what_it_used(kind, error, requests, audio) -> None:
    bench = Bench()
    bench.kinds.seconds, bench.kinds.error = 7.0, error
    async with bench.serving() as channel:
        ended = await asyncio.gather(answer(start(channel, kind, bytes(STEP_BYTES))), return_exceptions=True)
        assert isinstance(ended[0], aio.AioRpcError) == (error is not None)
        await bench.settled(requests, audio, STEP_BYTES, 0)


@pytest.mark.parametrize(
    ("error", "audio", "charged"),
    [
        (None, 7, 3 + 7),
        (CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "TRANSCRIPT_TOO_LONG", "too many words"), 0, 3),
        (unavailable("ENGINE_UNAVAILABLE"), 7, 0),
    ],
    ids=["served", "refused before it is decoded", "unavailable"],
)
@pytest.mark.parametrize("kind", ["UnaryUnary", "StreamUnary"])
async def test_a_transcript_is_charged_beside_the_audio(kind, error, audio, charged) -> None:
    bench = Bench()
    bench.kinds.text, bench.kinds.seconds, bench.kinds.error = 3.0, float(audio), error
    async with bench.serving() as channel:
        await asyncio.gather(answer(start(channel, kind, bytes(STEP_BYTES))), return_exceptions=True)
        await bench.settled(int(charged > 0), charged, STEP_BYTES, 0)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("steps", "audio"),
    [(["received"], 0), (["decoded 7"], 7), (["received", "decoded 7"], 7), (["received", "decoded 1"], 1)],
)
async def test_a_call_that_is_cancelled_while_the_store_is_asked_is_charged_exactly(stream, steps, audio) -> None:
    """The store has counted the last step, and the call, cancelled, has not heard of it."""
    bench = Bench()
    quota = bench.classes.classes["default"]
    await bench.store.take(SUBJECT, quota.charges(requests=1.0), quota.slots(stream=False), "lease")
    meter = CallMeter(bench.store, SUBJECT, quota, "lease", {}, lambda message: len(message) / 65_536, stream)

    async def take(step: str) -> None:
        if step == "received":
            await meter.received(STEP_BYTES, bytes(STEP_BYTES))
        else:
            await meter.decoded(float(step.partition(" ")[2]))

    for step in steps[:-1]:
        await take(step)
    bench.store.gate.clear()
    last = asyncio.create_task(take(steps[-1]))
    await loop_turns(9)
    last.cancel()
    await asyncio.gather(last, return_exceptions=True)
    closing = asyncio.create_task(meter.close(refund=False))
    bench.store.gate.set()
    await closing
    assert await bench.used() == (1, audio, STEP_BYTES if "received" in steps else 0, 0)


@pytest.mark.parametrize("kind", ["UnaryUnary", "StreamUnary"])
async def test_a_call_that_is_cancelled_while_it_ends_gives_its_slot_back(kind) -> None:
    bench = Bench()
    async with bench.serving() as channel:
        bench.store.gate.clear()
        call = channel.stream_unary(f"/{SERVICE}/{kind}")()
        await eventually(lambda: bench.store.taken == 1)
        call.cancel()
        await bench.store.asked.acquire()
        bench.store.gate.set()
        await bench.settled(1, 0, 0, 0)


async def test_what_is_received_is_charged_whatever_it_is() -> None:
    def refuse(message) -> None:
        raise CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "PAYLOAD_INVALID", "no")

    bench = Bench()
    chain = (Recovery("test"), RequestId(), bench.quota, Requests(refuse))
    async with chain_server(chain, bench.kinds) as server:
        for kind in ("UnaryUnary", "StreamUnary"):
            with pytest.raises(aio.AioRpcError):
                await answer(start(server.channel, kind, bytes(1000)))
        await bench.settled(2, 0, 2000, 0)
