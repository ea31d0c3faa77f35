"""What callers without a credential may hold: requests that arrive, streams of responses; and what of a request is read."""

from __future__ import annotations

import asyncio
import gzip
import os
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
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
    service: Service = field(default_factory=Service)

    def __post_init__(self) -> None:
        self.limits = ExemptLimits(
            {OPEN, WATCH}, record=self.events.append, streams=3, streams_per_address=2, clock=lambda: self.now
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


async def half_open(server: ChainServer, connection: Connection, path: str, body: bytes = b"") -> None:
    """A call whose request does not come, or comes in part."""
    await connection.send(connection.request(1, path), connection.data(1, body) if body else b"")


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


async def test_half_open_requests_leave_no_less_room_for_whole_ones(bench) -> None:
    async with bench.serving() as server, AsyncExitStack() as stack:
        for _ in range(2 * exempt_module.READS):
            await half_open(server, await stack.enter_async_context(http2(server.target)), OPEN)
        await eventually(lambda: bench.limits.reading >= exempt_module.READS)
        assert await asyncio.gather(*(start(server.channel, OPEN, b"%d" % n) for n in range(100))) == [
            b"%d" % n for n in range(100)
        ]
        # Those that came when there were many already have little time, the others more.
        await eventually(lambda: bench.limits.refused["REQUEST_INCOMPLETE"] == exempt_module.READS)


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
