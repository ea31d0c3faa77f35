"""What callers without a credential can make the service hold, and that health answers them all the while."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hyperframe.frame import PingFrame, SettingsFrame

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.config.protection import ConnectionSettings
from tests.kit.guarded import Home, bearer
from tests.kit.http2 import Connection, http2
from tests.kit.recordings import SPEECH, TRANSCRIPT
from tests.kit.refusals import refusal
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, connect, service, serving
from tests.kit.waiting import WAIT_TIMEOUT, eventually

SERVING, UNKNOWN = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
HEALTH = "/grpc.health.v1.Health/"
ALIGN = pb.AlignRequest(config=pb.AlignConfig(transcript=TRANSCRIPT, language="en"), audio=SPEECH)


def large(size: int) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service="x" * size)


async def reason(call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await (anext(aiter(call)) if isinstance(call, grpc.aio.UnaryStreamCall) else call)
    return refusal(error.value).reason


async def test_health_takes_what_a_health_check_needs_and_no_more(tmp_path) -> None:
    home = Home(tmp_path, mtls=False)
    async with home.serving() as running, home.connect(running) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for method in (stub.Check, stub.Watch):
            for size in (257, 1 << 20, 11 << 20):
                assert await reason(method(large(size))) == "REQUEST_TOO_LARGE"
            assert await reason(method(large(1 << 24), compression=grpc.Compression.Gzip)) == "COMPRESSION_REFUSED"
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == SERVING
        assert "" in (await stub.List(health_pb2.HealthListRequest())).statuses
        watch = aiter(stub.Watch(large(250)))
        assert (await anext(watch)).status == UNKNOWN

        def audited() -> set[str]:
            return {event["check"] for event in home.events() if event["event"] == "exempt_limit_exceeded"}

        await eventually(lambda: audited() == {"request_too_large", "compression_refused"})


async def test_known_callers_may_compress_and_are_bounded_too(tmp_path) -> None:
    home = Home(tmp_path, mtls=False)
    token = bearer(home.forge.token())
    async with home.serving() as running, home.connect(running) as channel:
        align = channel.unary_unary("/aligner.v1.Aligner/Align", response_deserializer=pb.AlignResponse.FromString)
        compressed = align(ALIGN.SerializeToString(), metadata=(token,), compression=grpc.Compression.Gzip)
        assert (await compressed).words
        bomb = align(bytes(1 << 27), metadata=(token,), compression=grpc.Compression.Gzip)
        assert await reason(bomb) == "REQUEST_TOO_LARGE"
        assert await reason(align(bytes(1 << 27), compression=grpc.Compression.Gzip)) == "CREDENTIALS_MISSING"


async def test_watches_are_bounded_and_the_others_of_the_service_are_not_affected() -> None:
    settings = ConnectionSettings(watches=3, watches_per_address=2)
    async with serving(engine=ScriptedEngine(), connections=settings) as running, connect(running.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [aiter(stub.Watch(large(n))) for n in (1, 2)]
        for watch in watches:
            assert (await anext(watch)).status == UNKNOWN
        assert await reason(stub.Watch(health_pb2.HealthCheckRequest())) == "STREAMS_EXCEEDED"
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == SERVING


async def answer_pings(client: Connection) -> None:
    """Or the server would take the client for gone."""
    while not client.closed:
        frame = await client.read(WAIT_TIMEOUT)
        if isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            await client.send(PingFrame(0, frame.opaque_data, flags=["ACK"]).serialize())


async def test_clients_that_take_nothing_delay_neither_others_nor_the_drain() -> None:
    running = service(engine=ScriptedEngine())
    await running.start()
    async with (
        asyncio.TaskGroup() as group,
        AsyncExitStack() as stack,
        calling(running.address) as aligner,
        connect(running.address) as channel,
    ):
        for _ in range(5):
            silent = await stack.enter_async_context(http2(running.address, {SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
            pings = group.create_task(answer_pings(silent))
            stack.callback(pings.cancel)
            for stream, method in ((1, "Watch"), (3, "Check"), (5, "List")):
                await silent.send(silent.request(stream, HEALTH + method), silent.data(stream, silent.message(b""), end=True))
        watch = aiter(health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()))
        assert (await anext(watch)).status == SERVING
        assert (await aligner.Align(ALIGN)).words
        draining = asyncio.create_task(running.drain())
        async with asyncio.timeout(WAIT_TIMEOUT / 2):
            assert (await anext(watch)).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert [one async for one in watch] == []
            await draining  # they are still there, and the grace for calls in flight is twice as long
