"""While the engine is behind, the senders of further uploads are held by flow control: their audio stays with them."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.config.limits import MIB, StreamSettings
from tests.kit.recordings import SPEECH
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, serving
from tests.kit.uploads import Answer, audio, chunks, config, linear16, send
from tests.kit.waiting import eventually

CHUNK = 64 * 1024
UPLOAD = 16 * MIB
SENT_AHEAD = 3 * MIB
"""Bounds what HTTP/2's windows and grpc's own buffers let a held sender write: 4 to 6 MiB, of an upload of 64 MiB too."""


class Sender:
    """An upload of 16 MiB of samples that counts what it got rid of."""

    def __init__(self, stub) -> None:
        self.written = 0
        self._call = stub.StreamAlign()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> Answer:
        await self._call.write(linear16("one two three"))
        for _ in range(UPLOAD // CHUNK):
            await self._call.write(audio(bytes(CHUNK)))
            self.written += CHUNK
        await self._call.done_writing()
        return Answer([message async for message in self._call])

    async def stuck(self) -> int:
        """Bytes written once nothing has moved for half a second, or all of them."""
        await eventually(lambda: self.written, "the first chunk is sent")
        before = -1
        while before != self.written < UPLOAD:
            before = self.written
            await asyncio.sleep(0.5)
        return self.written

    async def answer(self) -> Answer:
        return await self._task


async def occupy(stub, engine: ScriptedEngine) -> grpc.aio.StreamStreamCall:
    """A stream that the engine is busy with until its gate opens."""
    engine.gate.clear()
    call = stub.StreamAlign()
    await send(call, [config(), *chunks()])
    await call.done_writing()
    await engine.at_gate.acquire()
    return call


@pytest.mark.parametrize("connections", ["one connection", "two connections"])
async def test_a_second_sender_is_held_until_the_first_is_done(connections):
    engine = ScriptedEngine()
    async with (
        serving(engine=engine, stream=StreamSettings(concurrent=1)) as server,
        calling(server.address) as stub,
        calling(server.address) as other,
    ):
        first = await occupy(stub, engine)
        sender = Sender(stub if connections == "one connection" else other)
        assert 0 < await sender.stuck() <= SENT_AHEAD
        assert len(engine.started) == 1
        engine.gate.set()
        assert [message.WhichOneof("payload") async for message in first][-1] == "summary"
        answer = await sender.answer()
        assert sender.written == UPLOAD
        assert answer.progress[-1].received_bytes == UPLOAD
        assert answer.summary.audio_ms == UPLOAD // 32


async def test_with_memory_for_each_no_stream_waits():
    """The control: it is the memory of uploads that holds a sender, and nothing else in the way."""
    engine = ScriptedEngine()
    async with serving(engine=engine, stream=StreamSettings(concurrent=2)) as server, calling(server.address) as stub:
        first = await occupy(stub, engine)
        sender = Sender(stub)
        await engine.at_gate.acquire()
        assert sender.written == UPLOAD
        engine.gate.set()
        assert [message.WhichOneof("payload") async for message in first][-1] == "summary"
        assert (await sender.answer()).summary.audio_ms == UPLOAD // 32


async def test_a_held_upload_does_not_hold_other_calls_of_its_connection():
    engine = ScriptedEngine()
    async with serving(engine=engine, stream=StreamSettings(concurrent=1)) as server, calling(server.address) as stub:
        first = await occupy(stub, engine)
        senders = [Sender(stub) for _ in range(4)]
        for sender in senders:
            assert await sender.stuck() < UPLOAD
        assert (await stub.GetServerInfo(pb.GetServerInfoRequest())).version
        unary = asyncio.create_task(_align(stub))
        await engine.at_gate.acquire()
        engine.gate.set()
        assert (await unary).words
        assert [message.WhichOneof("payload") async for message in first][-1] == "summary"
        for sender in senders:
            assert (await sender.answer()).summary.audio_ms == UPLOAD // 32


async def _align(stub) -> pb.AlignResponse:
    return await stub.Align(pb.AlignRequest(config=config().config, audio=SPEECH))
