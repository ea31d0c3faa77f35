"""Callers that send slowly, or nothing, on a server of the prod profile with its own quotas: the others do not notice."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import grpc
import pytest

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_svc.config.limits import StreamSettings
from aligner_svc.config.protection import QuotaSettings
from tests.kit.guarded import Home, bearer
from tests.kit.recordings import SPEECH
from tests.kit.refusals import refusal
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, serving
from tests.kit.uploads import chunks, config, stream
from tests.kit.waiting import eventually

ALIGN = pb.AlignRequest(config=config().config, audio=SPEECH)


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path, mtls=False, methods=("jwt",))


async def test_slow_uploads_of_one_caller_leave_room_for_those_of_others(home) -> None:
    """As many streams as its quota allows, more than there used to be slots."""
    greedy, other = (bearer(home.forge.token(home.forge.claims(sub=name))) for name in ("greedy", "other"))
    async with home.serving(quota=QuotaSettings()) as server, home.connect(server) as channel, home.connect(server) as another:
        slow = [AlignerStub(channel).StreamAlign(metadata=[greedy]) for _ in range(16)]
        for call in slow:
            await call.write(config())
            await call.write(pb.StreamAlignRequest(audio=SPEECH[:1]))
        stub = AlignerStub(another)
        for _ in range(5):
            call = stub.StreamAlign(iter([config(), *chunks()]), metadata=[other])
            assert [message.WhichOneof("payload") async for message in call][-1] == "summary"
            assert (await stub.Align(ALIGN, metadata=[other])).words
        for call in slow:
            call.cancel()


async def test_empty_half_open_calls_of_four_callers_refuse_nobody_else(home) -> None:
    """64 calls of each, as many as their quota allows; 256 used to be all that the server admits."""
    callers = [bearer(home.forge.token(home.forge.claims(sub=f"greedy-{number}"))) for number in range(4)]
    other = bearer(home.forge.token(home.forge.claims(sub="other")))
    async with AsyncExitStack() as channels:
        server = await channels.enter_async_context(home.serving(quota=QuotaSettings()))
        overload = server._guards.protection.overload
        calls = []
        for caller in callers:
            channel = await channels.enter_async_context(home.connect(server))
            calls += [channel.stream_unary("/aligner.v1.Aligner/Align")(metadata=[caller]) for _ in range(64)]
        await eventually(lambda: overload.counts.on_the_way == 4 * 64, "the calls to be half open")
        channel = await channels.enter_async_context(home.connect(server))
        answers = await asyncio.gather(*(AlignerStub(channel).Align(ALIGN, metadata=[other]) for _ in range(8)))
        assert all(answer.words for answer in answers)
        for call in calls:
            call.cancel()
        await eventually(lambda: any(event["event"] == "requests_unfinished" for event in home.events()))


async def finish_reading(call: grpc.aio.StreamStreamCall) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_a_trickle_is_ended_and_says_what_to_do() -> None:
    times = StreamSettings(idle_timeout=0.5, least_rate=1e6)
    async with serving(engine=ScriptedEngine(), stream=times) as server, calling(server.address) as stub:
        call = stub.StreamAlign()
        await call.write(config())

        async def trickle() -> None:
            while not call.done():
                await call.write(pb.StreamAlignRequest(audio=b"1"))
                await asyncio.sleep(0.05)

        trickling = asyncio.create_task(trickle())
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await finish_reading(call)
        assert (refusal(error.value).reason, refusal(error.value).fields) == ("UPLOAD_TOO_SLOW", ("payload",))
        assert "send faster" in error.value.details()
        trickling.cancel()
        await asyncio.gather(trickling, return_exceptions=True)
        assert (await stream(stub, [config(), *chunks()])).words
