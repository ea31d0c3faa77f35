"""What callers without a credential may hold: requests that arrive, streams of responses; and what of a request is read."""

from __future__ import annotations

import asyncio
import gzip
import os
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import pytest
from grpc import aio

from interceptors import Event, ExemptLimits, Recovery, RequestId, Requests, SecurityEvent
from interceptors.handlers import exempt as exempt_module
from tests.kit.chain_server import SERVICE, ChainServer, KindsHandler, PeerFromHeader, chain_server, start
from tests.kit.http2 import Connection, http2
from tests.kit.refusals import refusal
from tests.kit.waiting import eventually, forever

OPEN, KNOWN, WATCH = (f"/{SERVICE}/{name}" for name in ("Open", "UnaryUnary", "UnaryStream"))
MOST, LARGEST = 1 << 20, 256
OPTIONS = (("grpc.per_message_decompression", 0), ("grpc.max_receive_message_length", MOST))


class Service(KindsHandler):
    def unary_methods(self):
        return {"Open": self.unary_unary}

    async def unary_stream(self, request, context) -> AsyncIterator[bytes]:
        yield b"open"
        await forever()


@dataclass
class Bench:
    """A server with two exempt methods, OPEN and WATCH."""

    events: list[SecurityEvent] = field(default_factory=list)
    now: float = 1000.0
    most: int = 3
    per_address: int = 2
    service: Service = field(default_factory=Service)

    def __post_init__(self) -> None:
        self.limits = ExemptLimits(
            {OPEN, WATCH},
            record=self.events.append,
            streams=self.most,
            streams_per_address=self.per_address,
            clock=lambda: self.now,
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[ChainServer]:
        requests = Requests(largest={OPEN: LARGEST, WATCH: LARGEST}, most=MOST, exempt=self.limits)
        chain = (Recovery("test"), RequestId(), PeerFromHeader(), requests)
        async with chain_server(chain, self.service, tls=False, options=OPTIONS) as server:
            yield server


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def refused(call) -> tuple[str, str]:
    with pytest.raises(aio.AioRpcError) as error:
        await call
    found = refusal(error.value)
    return found.code.name, found.reason


async def test_a_request_of_an_exempt_method_is_small(bench) -> None:
    async with bench.serving() as server:
        assert await start(server.channel, OPEN, b"x" * LARGEST) == b"x" * LARGEST
        for size in (LARGEST + 1, MOST):
            assert await refused(start(server.channel, OPEN, b"x" * size)) == ("RESOURCE_EXHAUSTED", "REQUEST_TOO_LARGE")
        assert await start(server.channel, KNOWN, b"x" * MOST) == b"x" * MOST
    assert bench.service.read == LARGEST + MOST


async def test_compression_is_for_known_callers_and_expands_no_further_than_their_limit(bench) -> None:
    async with bench.serving() as server:
        strange = start(server.channel, OPEN, bytes(1 << 24), compression=grpc.Compression.Gzip)
        assert await refused(strange) == ("UNIMPLEMENTED", "COMPRESSION_REFUSED")
        whole = os.urandom(MOST // 2) + bytes(MOST // 2)
        assert await start(server.channel, KNOWN, whole, compression=grpc.Compression.Gzip) == whole
        bomb = start(server.channel, KNOWN, bytes(1 << 26), compression=grpc.Compression.Gzip)
        assert await refused(bomb) == ("RESOURCE_EXHAUSTED", "REQUEST_TOO_LARGE")


@pytest.mark.parametrize(
    "body",
    [gzip.compress(b"a" * 2000)[:-1], gzip.compress(b"a" * 2000) + b"more", b"\x1f\x8b", b"\x1f\x8bnot gzip at all"],
    ids=["cut off", "followed by more", "empty", "damaged"],
)
async def test_what_is_not_one_gzip_file_is_malformed(bench, body) -> None:
    async with bench.serving() as server:
        assert await refused(start(server.channel, KNOWN, body)) == ("INVALID_ARGUMENT", "MESSAGE_MALFORMED")


async def test_what_a_bomb_expands_to_is_never_there(bench, monkeypatch) -> None:
    made = 0

    class Counting:
        def __init__(self, wbits: int) -> None:
            self._gzip = decompressobj(wbits)

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal made
            found = self._gzip.decompress(data, most)
            made += len(found)
            return found

        def __getattr__(self, name: str) -> object:
            return getattr(self._gzip, name)

    decompressobj = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Counting)
    async with bench.serving() as server:
        await refused(start(server.channel, KNOWN, gzip.compress(bytes(1 << 27))))
    assert made == MOST + 1


async def half_open(server: ChainServer, connection: Connection, path: str, body: bytes = b"", stream: int = 1) -> None:
    """A call whose request does not come, or comes in part."""
    await connection.send(connection.request(stream, path), connection.data(stream, body) if body else b"")


async def test_a_request_that_does_not_arrive_ends_its_call(bench, monkeypatch) -> None:
    monkeypatch.setattr(exempt_module, "READ_TIMEOUT", 0.05)
    async with bench.serving() as server:
        for body in (b"", Connection.message(b"x" * 100, length=MOST)):
            async with http2(server.target) as silent:
                await half_open(server, silent, OPEN, body)
                fields = await silent.fields(1)
                assert fields["grpc-status"] == str(grpc.StatusCode.INVALID_ARGUMENT.value[0])
        await eventually(lambda: bench.limits.reading == 0)
    assert bench.limits.refused == {"REQUEST_INCOMPLETE": 2}
    assert bench.service.read == 0


async def test_half_open_requests_leave_no_less_room_for_whole_ones() -> None:
    """Of the same address, whose half-open ones are read first."""
    bench = Bench(most=1000, per_address=200)
    async with bench.serving() as server, http2(server.target) as silent:
        for number in range(3 * exempt_module.READS):
            await half_open(server, silent, OPEN, stream=2 * number + 1)
        await eventually(lambda: bench.limits.reading == 3 * exempt_module.READS)
        bodies = [b"%d" % number for number in range(100)]
        assert await asyncio.gather(*(start(server.channel, OPEN, body) for body in bodies)) == bodies
        await eventually(lambda: bench.limits.reading == 0)
    assert bench.limits.refused == {"REQUEST_INCOMPLETE": 3 * exempt_module.READS}


async def test_half_open_requests_are_bounded_for_an_address(bench, monkeypatch) -> None:
    """That of another address is answered all the while, and one line of the audit log tells of it."""
    monkeypatch.setattr(exempt_module, "READ_TIMEOUT", 60.0)
    monkeypatch.setattr(exempt_module, "CROWDED_READ_TIMEOUT", 60.0)
    async with bench.serving() as server, http2(server.target) as silent:
        for number in range(50):
            await half_open(server, silent, OPEN, stream=2 * number + 1)
        await eventually(lambda: bench.limits.refused["REQUESTS_UNFINISHED"] == 50 - bench.per_address)
        assert await start(server.channel, OPEN, b"whole", metadata=(("x-peer", "ipv4:192.0.2.1:1"),)) == b"whole"
        assert bench.limits.reading == bench.per_address
    assert [(event.event, event.check) for event in bench.events] == [(Event.EXEMPT_LIMIT_EXCEEDED, "requests_unfinished")]


async def test_half_open_requests_of_the_address_that_has_most_make_room(monkeypatch) -> None:
    """For one of an address that has fewer, when there are as many as there may be in all."""
    monkeypatch.setattr(exempt_module, "READ_TIMEOUT", 60.0)
    monkeypatch.setattr(exempt_module, "CROWDED_READ_TIMEOUT", 60.0)
    bench = Bench(most=4, per_address=3)
    async with bench.serving() as server, http2(server.target) as one, http2(server.target) as other:
        for number in range(3):
            await half_open(server, one, OPEN, stream=2 * number + 1)
        await eventually(lambda: bench.limits.reading == 3)
        await other.send(other.request(1, OPEN, ("x-peer", "ipv4:192.0.2.1:1")))
        await eventually(lambda: bench.limits.reading == 4)
        assert await start(server.channel, OPEN, b"whole", metadata=(("x-peer", "ipv4:192.0.2.2:1"),)) == b"whole"
        assert (await one.fields(1))["grpc-status"] == str(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
        assert bench.limits.reading == 3
    assert bench.limits.refused == {"REQUESTS_UNFINISHED": 1}


async def watching(server: ChainServer, peer: str) -> aio.UnaryStreamCall:
    call = start(server.channel, WATCH, b"", metadata=(("x-peer", peer),))
    assert await anext(aiter(call)) == b"open"
    return call


async def stream_refused(server: ChainServer, peer: str) -> str:
    with pytest.raises(aio.AioRpcError) as error:
        await anext(aiter(start(server.channel, WATCH, b"", metadata=(("x-peer", peer),))))
    return refusal(error.value).reason


async def test_streams_are_bounded_for_an_address_and_in_all(bench) -> None:
    async with bench.serving() as server:
        calls = [await watching(server, f"ipv6:[2001:db8::{n}]:1") for n in range(2)]  # of one /64
        assert await stream_refused(server, "ipv6:[2001:db8::9]:1") == "STREAMS_EXCEEDED"
        calls.append(await watching(server, "ipv4:192.0.2.1:1"))
        assert await stream_refused(server, "ipv4:192.0.2.2:1") == "STREAMS_EXCEEDED", "three in all"
        calls.pop(0).cancel()
        await eventually(lambda: bench.limits.streaming == 2)
        calls.append(await watching(server, "ipv6:[2001:db8::9]:1"))
        for call in calls:
            call.cancel()
        await eventually(lambda: bench.limits.streaming == 0)
    assert bench.limits.refused == {"STREAMS_EXCEEDED": 2}


async def test_a_limit_is_audited_once_a_minute_for_an_address(bench) -> None:
    async def too_large(peer: str) -> None:
        await refused(start(server.channel, OPEN, bytes(1000), metadata=(("x-peer", peer),)))

    async with bench.serving() as server:
        for peer in ("ipv4:192.0.2.1:1", "ipv4:192.0.2.1:2", "ipv4:192.0.2.2:1"):
            await too_large(peer)
        bench.now += 60
        await too_large("ipv4:192.0.2.1:3")
    assert [event.peer for event in bench.events] == ["ipv4:192.0.2.1:1", "ipv4:192.0.2.2:1", "ipv4:192.0.2.1:3"]
    assert {(event.event, event.check) for event in bench.events} == {(Event.EXEMPT_LIMIT_EXCEEDED, "request_too_large")}
    assert bench.limits.refused == {"REQUEST_TOO_LARGE": 4}


async def test_a_method_that_nobody_has_written_is_unimplemented() -> None:
    class Generated(KindsHandler):
        """As protoc's plugin makes them."""

        def unary_unary(self, request, context):
            context.set_code(grpc.StatusCode.UNIMPLEMENTED)
            raise NotImplementedError

        unary_stream = unary_unary

    async with chain_server((Recovery("test"), RequestId(), Requests()), Generated(), tls=False) as server:
        assert await refused(start(server.channel, "UnaryUnary")) == ("UNIMPLEMENTED", "METHOD_UNKNOWN")
        with pytest.raises(aio.AioRpcError) as error:
            await anext(aiter(start(server.channel, "UnaryStream")))
        assert refusal(error.value).reason == "METHOD_UNKNOWN"
