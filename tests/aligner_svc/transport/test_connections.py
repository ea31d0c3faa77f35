"""No address takes the connections of all, and a connection that only costs is closed."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hyperframe.frame import ContinuationFrame, HeadersFrame, PingFrame

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_svc.config.protection import ConnectionSettings
from aligner_svc.transport.connections import ConnectionLimits, OpenConnection, Peer, above_limit, close, connections, peer_of
from tests.kit.http2 import http2
from tests.kit.recordings import SPEECH, TRANSCRIPT
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import connect, serving
from tests.kit.waiting import WAIT_TIMEOUT, eventually

FEW = ConnectionSettings(most=40, per_address=10)


def opened(target: str, source: str) -> socket.socket:
    """A connection that sends nothing."""
    host, _, port = target.rpartition(":")
    return socket.create_connection((host, int(port)), source_address=(source, 0), timeout=10)


def ended(connection: socket.socket) -> bool:
    """Whether the server has closed it."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


async def info(target: str) -> pb.GetServerInfoResponse:
    async with connect(target) as channel:
        return await AlignerStub(channel).GetServerInfo(pb.GetServerInfoRequest(), timeout=10)


async def test_one_address_cannot_take_them_all():
    """1,000 idle connections of one host shut every new client out, until they were 15 minutes old."""
    async with serving(engine=ScriptedEngine(), connections=FEW) as server:
        many = [opened(server.address, "127.0.0.7") for _ in range(39)]
        try:
            await eventually(lambda: server.connections.closed["address_limit"] >= 29, "the idle ones to be closed")
            assert await info(server.address)
            await eventually(lambda: sum(map(ended, many)) == 29, "the clients to see it")
        finally:
            for each in many:
                each.close()


async def test_when_all_are_taken_the_address_with_the_most_makes_room():
    settings = ConnectionSettings(most=20, per_address=15)
    async with serving(engine=ScriptedEngine(), connections=settings) as server:
        few = [opened(server.address, "127.0.0.8") for _ in range(4)]
        many = [opened(server.address, "127.0.0.9") for _ in range(15)]
        try:
            await eventually(lambda: server.connections.closed["full"] == 1, "one to be closed")
            assert await info(server.address)
            await eventually(lambda: sum(map(ended, many)) == 1, "one of those to be closed")
            assert not any(map(ended, few))
        finally:
            for each in few + many:
                each.close()


async def test_a_connection_with_a_call_is_not_closed():
    engine = ScriptedEngine()
    engine.gate.clear()
    async with serving(engine=engine, connections=FEW) as server, AsyncExitStack() as stack:
        request = pb.AlignRequest(config=pb.AlignConfig(transcript=TRANSCRIPT, language="en"), audio=SPEECH)
        channels = [await stack.enter_async_context(connect(server.address)) for _ in range(10)]
        calls = [AlignerStub(channel).Align(request) for channel in channels]
        await eventually(lambda: server.connections.open >= 10, "the calls to be seen")
        idle = [opened(server.address, "127.0.0.1") for _ in range(5)]
        await eventually(lambda: server.connections.closed["address_limit"] >= 5, "the idle ones to be closed")
        engine.gate.set()
        for call in calls:
            assert (await call).words
        for each in idle:
            assert ended(each)
            each.close()


def continuations(stream: int) -> bytes:
    """A header block without an end: HEADERS, then CONTINUATION frames that never say END_HEADERS."""
    block = b"\x00\x05x-pad\x7f\x81\x1f" + b"a" * 4096  # a literal field, not indexed; its value is 4,096 bytes
    return HeadersFrame(stream, block).serialize() + ContinuationFrame(stream, block).serialize() * 255


@pytest.mark.parametrize("kind", ["continuation", "ping", "garbage frames"])
async def test_a_flood_ends_its_connection(kind):
    async with serving(engine=ScriptedEngine()) as server, http2(server.address) as stranger:
        pieces = {
            "continuation": continuations(1),
            "ping": PingFrame(0, b"12345678").serialize() * 60_000,
            "garbage frames": (b"\x00\x40\x00\xee\x00\x00\x00\x00\x00" + bytes(0x4000)) * 64,
        }

        async def flood() -> None:
            for _ in range(1 + (30 << 20) // len(pieces[kind])):
                await stranger.send(pieces[kind])

        flooding = asyncio.create_task(flood())
        assert await stranger.until_closed(WAIT_TIMEOUT)
        flooding.cancel()
        await asyncio.wait({flooding})
        assert await info(server.address)


async def test_large_calls_and_many_health_checks_are_no_flood(monkeypatch):
    looks = []
    monkeypatch.setattr("aligner_svc.transport.connections.connections", lambda port: looks.append(port) or connections(port))
    async with serving(engine=ScriptedEngine(), connections=FEW) as server, connect(server.address) as channel:
        stub, health = AlignerStub(channel), health_pb2_grpc.HealthStub(channel)
        request = pb.AlignRequest(config=pb.AlignConfig(transcript="word", language="en"), audio=SPEECH[:44] + bytes(4 << 20))
        seen = len(looks)
        while len(looks) < seen + 4:  # the first may have begun before
            with pytest.raises(grpc.RpcError):
                await stub.Align(request)
            await asyncio.gather(*(health.Check(health_pb2.HealthCheckRequest()) for _ in range(50)))
        assert not server.connections.closed.total()


def of(host: int, port: int, quiet: float = 0.0) -> OpenConnection:
    return OpenConnection(0, Peer(bytes([10, 0, 0, host]), port), quiet, 0)


def test_the_longest_quiet_go_first_and_busy_ones_stay():
    found = [of(1, port, quiet=port) for port in range(6)]
    chosen = above_limit(found, found[:5], ConnectionLimits(100, 3))
    assert [(each.peer.port, reason) for each, reason in chosen] == [
        (4, "address_limit"),
        (3, "address_limit"),
        (2, "address_limit"),
    ]


def test_room_is_made_by_the_addresses_with_the_most():
    found = [*(of(1, port, 9) for port in range(6)), *(of(2, port, 99) for port in range(3)), of(3, 1, 999)]
    chosen = above_limit(found, found, ConnectionLimits(7, 100))
    assert [each.peer.address[-1] for each, _ in chosen] == [1, 1, 1]
    assert above_limit(found, found, ConnectionLimits(11, 100)) == []


def test_ipv6_counts_by_its_64():
    hosts = [Peer(bytes([0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, *bytes(7), host]), 1) for host in range(4)]
    found = [OpenConnection(0, peer, 0, 0) for peer in hosts]
    assert len(above_limit(found, found, ConnectionLimits(100, 1))) == 3


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_connections_are_seen_and_closed(host, family):
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        client = socket.create_connection((host, port))
        taken, _ = server.accept()
        client.send(b"x" * 100)
        assert taken.recv(100)
        [found] = connections(port)
        wrapped = f"%5B{host}%5D" if family is socket.AF_INET6 else host
        name = f"{'ipv6' if family is socket.AF_INET6 else 'ipv4'}:{wrapped}:{client.getsockname()[1]}"
        assert (str(found.peer), peer_of(name)) == (name, found.peer)
        assert found.received == 100
        assert close(port, found)
        assert client.recv(1) == b""
        taken.close()
        assert not close(port, found)
        client.close()
