"""What a server tells of itself from the first moment to the last, and where it refuses to listen."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_client.errors import from_rpc
from aligner_svc import __version__
from aligner_svc.config.limits import Limits
from aligner_svc.engines.pocketsphinx.languages import table
from aligner_svc.server import StartError
from tests.kit.recordings import SPEECH, TRANSCRIPT, WORDS
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import connect, gone, listening, service, serving
from tests.kit.uploads import chunks, config, reached, send
from tests.kit.waiting import WAIT_TIMEOUT, eventually

SERVICE = "aligner.v1.Aligner"
SERVING = health_pb2.HealthCheckResponse.SERVING
OK = ("OK", "")
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def health(name: str = SERVICE) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=name)


async def test_health_from_the_first_moment_to_the_last():
    engine = ScriptedEngine()
    engine.warm.clear()
    server = service(engine=engine)
    starting = asyncio.create_task(server.start())
    await eventually(lambda: bool(server.address), "the server to listen")
    async with connect(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [aiter(stub.Watch(health(name), wait_for_ready=True)) for name in ("", SERVICE)]
        for watch in watches:
            assert (await anext(watch)).status == NOT_SERVING
        for name in ("", SERVICE):
            assert (await stub.Check(health(name))).status == NOT_SERVING
        engine.warm.set()
        await starting
        for watch in watches:
            assert (await anext(watch)).status == SERVING
        assert (await stub.Check(health())).status == SERVING
        draining = asyncio.create_task(server.drain())
        for watch in watches:
            assert (await anext(watch)).status == NOT_SERVING
    await draining


async def test_a_watcher_does_not_hold_the_drain():
    """Balancers watch for as long as they are connected; with nothing in flight there is nothing to wait for."""
    server = service(engine=ScriptedEngine())
    await server.start()
    async with connect(server.address) as channel:
        watch = aiter(health_pb2_grpc.HealthStub(channel).Watch(health(), wait_for_ready=True))
        assert (await anext(watch)).status == SERVING
        async with asyncio.timeout(WAIT_TIMEOUT / 2):  # the grace for calls in flight is twice as long
            await server.drain()
        assert (await anext(watch)).status == NOT_SERVING


async def test_health_of_a_service_that_is_not_here(server):
    async with connect(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            await stub.Check(health("aligner.v2.Aligner"))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        assert (
            await anext(aiter(stub.Watch(health("aligner.v2.Aligner"))))
        ).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def test_a_call_before_the_models_are_loaded_waits_for_them():
    server = service()
    starting = asyncio.create_task(server.start())
    await eventually(lambda: bool(server.address), "the server to listen")
    async with connect(server.address) as channel:
        request = pb.AlignRequest(config=pb.AlignConfig(transcript=TRANSCRIPT, language="en"), audio=SPEECH)
        response = await AlignerStub(channel).Align(request, wait_for_ready=True)
    assert [word.text for word in response.words] == list(WORDS)
    await starting
    await server.drain()


async def test_reflection_describes_the_api(server):
    async def ask() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)

    async with connect(server.address) as channel:
        answers = [answer async for answer in reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(ask())]
    assert {SERVICE, "grpc.health.v1.Health"} <= {one.name for one in answers[0].list_services_response.service}
    assert answers[1].file_descriptor_response.file_descriptor_proto


async def test_server_info(stub):
    info = await stub.GetServerInfo(pb.GetServerInfoRequest())
    assert info.version == __version__
    assert info.engine.startswith("pocketsphinx-")
    assert set(info.languages) == {"en", *table.served("measured")}
    limits = Limits()
    assert info.limits == pb.Limits(
        unary_audio_bytes=limits.unary_audio_bytes,
        stream_audio_bytes=limits.stream_audio_bytes,
        stream_chunk_bytes=limits.stream_chunk_bytes,
        audio_seconds=round(limits.audio_seconds),
        transcript_chars=limits.transcript_chars,
    )


async def test_a_method_that_is_not_here(server):
    async with connect(server.address) as channel:
        with pytest.raises(grpc.RpcError) as error:
            await channel.unary_unary(f"/{SERVICE}/Transcribe")(b"")
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_busy_clients_lose_no_call_to_a_drain():
    """GRPC ends calls that arrive while it stops with CANCELLED, which is not safe to retry: 12 to 15 of 16 busy connections."""
    server = service(engine=ScriptedEngine())
    await server.start()
    ended: Counter[tuple[str, str]] = Counter()
    retry_after: list[float | None] = []

    async def call_until_refused() -> None:
        async with connect(server.address) as channel:
            info = AlignerStub(channel).GetServerInfo
            while True:
                try:
                    await info(pb.GetServerInfoRequest())
                except grpc.aio.AioRpcError as error:
                    ended[error.code().name, from_rpc(error).reason] += 1
                    retry_after.append(from_rpc(error).retry_after)
                    return
                ended[OK] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(call_until_refused())
        await eventually(lambda: ended[OK] > 16, "the clients to be busy")
        group.create_task(server.drain())
    assert set(ended) <= {OK, ("UNAVAILABLE", "SERVER_DRAINING")}
    assert ended["UNAVAILABLE", "SERVER_DRAINING"] == 16
    assert all(retry_after)


async def test_drain_lets_a_call_finish_and_takes_no_other():
    engine = ScriptedEngine()
    engine.gate.clear()
    server = service(engine=engine)
    await server.start()
    pids = server.decoder.pool.pids
    async with connect(server.address) as channel, connect(server.address) as late:
        await late.channel_ready()
        unary = asyncio.create_task(_align(channel))
        call = AlignerStub(channel).StreamAlign()
        await send(call, [config(), *chunks()])
        await call.done_writing()
        await reached(call, pb.Progress.STAGE_ALIGNING)
        await engine.at_gate.acquire()
        await engine.at_gate.acquire()
        draining = asyncio.create_task(server.drain())
        await eventually(lambda: not listening(server.address), "new connections to be refused")
        # A call that crosses the GOAWAY on its way may end as anything.
        await eventually(lambda: late.get_state() is not grpc.ChannelConnectivity.READY, "the open connection to hear of it")
        with pytest.raises(grpc.RpcError) as error:
            await AlignerStub(late).GetServerInfo(pb.GetServerInfoRequest())
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not draining.done()
        engine.gate.set()
        assert (await unary).words
        assert [message.WhichOneof("payload") async for message in call][-1] == "summary"
        await draining
    await gone(pids)


async def _align(channel: grpc.aio.Channel) -> pb.AlignResponse:
    return await AlignerStub(channel).Align(pb.AlignRequest(config=config().config, audio=SPEECH))


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:0", "[::1]:0"])
async def test_loopback_is_fine(listen):
    if listen == "[::1]:0":
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError:
            pytest.skip("needs IPv6")
    async with serving(engine=ScriptedEngine(), listen=listen) as server, connect(server.address) as channel:
        assert server.address.startswith(listen.removesuffix("0"))
        assert (await AlignerStub(channel).GetServerInfo(pb.GetServerInfoRequest())).engine == "scripted-1"


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[2001:db8::1]:0", "10.0.0.1:50051"])
async def test_an_address_others_can_reach_is_refused(listen):
    with pytest.raises(StartError, match=r"refusing to listen on .* can be reached from other machines.*TLS.*authentication"):
        await service(listen=listen).start()


@pytest.mark.parametrize("addresses", [["93.184.215.14"], ["127.0.0.1", "93.184.215.14"], ["2606:2800::1"]])
async def test_so_is_a_name_for_one(monkeypatch, addresses):
    """A name server is the one thing here that has to be made up."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(0, 0, 0, "", (address, 0)) for address in addresses])
    with pytest.raises(StartError, match=r"refusing to listen on aligner\.example\.com: .*TLS"):
        await service(listen="aligner.example.com:0").start()


async def test_a_name_that_is_none():
    with pytest.raises(StartError, match=r"'nowhere\.invalid': the name does not resolve"):
        await service(listen="nowhere.invalid:0").start()


@pytest.mark.parametrize(
    "listen", ["", ":", "50051", ":50051", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536", "127.0.0.1:-1", "::1"]
)
async def test_a_listen_string_that_is_none(listen):
    with pytest.raises(StartError, match="HOST:PORT is needed"):
        await service(listen=listen).start()


async def test_a_port_in_use(server):
    with pytest.raises(StartError, match=f"cannot listen on {server.address}: .*in use"):
        await service(listen=server.address).start()
