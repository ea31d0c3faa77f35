"""Clients that disconnect: their slot becomes free, and work for them stops."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.config.limits import StreamSettings
from aligner_svc.server import Service
from tests.kit import recordings
from tests.kit.recordings import SPEECH, WORDS
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, serving
from tests.kit.uploads import Stage, chunks, config, reached, send, stream
from tests.kit.waiting import eventually

ONE = StreamSettings(concurrent=1)


@pytest_asyncio.fixture(loop_scope="module")
async def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest_asyncio.fixture(loop_scope="module")
async def server(engine) -> AsyncIterator[Service]:
    """A service with one slot for uploads."""
    async with serving(engine=engine, stream=ONE) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole_service() -> AsyncIterator[Service]:
    """The same with the engine that is shipped."""
    async with serving(workers=1, stream=ONE) as running:
        yield running


async def check_alive(stub, engine) -> None:
    """The next stream gets the slot, and is the only one that was worked for since."""
    before = len(engine.started)
    assert [word.text for word in (await stream(stub, [config(), *chunks()])).words] == list(WORDS)
    assert len(engine.started) == before + 1


async def test_cancelled_before_any_audio(stub, engine):
    call = stub.StreamAlign()
    await call.write(config())
    call.cancel()
    await check_alive(stub, engine)


async def test_cancelled_in_the_middle_of_the_upload(stub, engine):
    """What came so far is a recording that could be aligned: the server sees the upload end and must not take it as one."""
    call = stub.StreamAlign()
    await send(call, [config(), *chunks()])
    await reached(call, Stage.STAGE_RECEIVING)
    call.cancel()
    await check_alive(stub, engine)
    assert len(engine.started) == 1


async def test_the_connection_breaks_in_the_middle_of_the_upload(server, stub, engine):
    async with calling(server.address) as dropped:
        call = dropped.StreamAlign()
        await send(call, [config(), *chunks()])
        await reached(call, Stage.STAGE_RECEIVING)
    await check_alive(stub, engine)
    assert len(engine.started) == 1


async def test_many_leave_in_the_middle_of_the_upload(server, stub, engine):
    for _ in range(20):
        call = stub.StreamAlign()
        await send(call, [config(), *chunks()])
        call.cancel()
    await check_alive(stub, engine)
    assert len(engine.started) == 1


async def test_cancelled_while_being_aligned(stub, engine):
    engine.gate.clear()
    call = stub.StreamAlign()
    await send(call, [config(), *chunks()])
    await call.done_writing()
    await reached(call, Stage.STAGE_ALIGNING)
    await engine.at_gate.acquire()
    call.cancel()
    await eventually(lambda: engine.cancelled == 1, "the engine to hear of it")
    engine.gate.set()
    await check_alive(stub, engine)


async def test_the_deadline_passes_while_being_aligned(stub, engine):
    engine.gate.clear()
    call = stub.StreamAlign(timeout=1.0)
    await send(call, [config(), *chunks()])
    await call.done_writing()
    with pytest.raises(grpc.RpcError) as error:
        await reached(call, Stage.STAGE_UNSPECIFIED)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: engine.cancelled == len(engine.started), "the engine to hear of it")
    engine.gate.set()
    await check_alive(stub, engine)


async def test_cancelled_while_waiting_for_a_slot(stub, engine):
    engine.gate.clear()
    first = stub.StreamAlign()
    await send(first, [config(), *chunks()])
    await first.done_writing()
    await engine.at_gate.acquire()
    for _ in range(3):
        waiting = stub.StreamAlign()
        await send(waiting, [config(), *chunks(SPEECH[:4000])])
        waiting.cancel()
    engine.gate.set()
    assert [message.WhichOneof("payload") async for message in first][-1] == "summary"
    await check_alive(stub, engine)
    assert len(engine.started) == 2


async def test_a_unary_call_is_cancelled_too(stub, engine):
    engine.gate.clear()
    call = stub.Align(pb.AlignRequest(config=config().config, audio=SPEECH))
    await engine.at_gate.acquire()
    call.cancel()
    await eventually(lambda: engine.cancelled == 1, "the engine to hear of it")


@pytest.mark.parametrize("how", ["cancelled", "disconnected"])
async def test_the_real_engine_goes_on_with_the_next_stream(whole_service, how):
    """Speech for two windows is abandoned in the middle; the answer to the next caller is the right one."""
    data, transcript = recordings.repeated(6)
    async with calling(whole_service.address) as stub:
        expected = await stub.Align(pb.AlignRequest(config=config().config, audio=SPEECH))
        async with calling(whole_service.address) as dropped:
            call = dropped.StreamAlign()
            await send(call, [config(transcript), *chunks(data)])
            await call.done_writing()
            await reached(call, Stage.STAGE_ALIGNING)
            if how == "cancelled":
                call.cancel()
        assert (await stream(stub, [config(), *chunks()])).words == list(expected.words)
