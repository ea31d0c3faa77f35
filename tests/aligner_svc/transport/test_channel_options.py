"""gRPC knows every option, and each has its effect on a real server.

Where gRPC's client would keep to the limits, the tests write frames of HTTP/2 to a socket.
"""

from __future__ import annotations

import asyncio
import gzip
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from grpc import aio

from aligner_svc.transport.channel_options import ChannelOptions, ChannelOptionsError
from tests.kit.http2 import http2

METHOD = "/test.Transport/Call"
WAIT_TIMEOUT = 60.0
MIB = 1 << 20
SHORT = 0.2
"""Seconds: a time limit that the tests wait for."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
ACK = 1
REFUSED_STREAM, ENHANCE_YOUR_CALM = 7, 11
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW = 3, 4


def options(**changed) -> ChannelOptions:
    return ChannelOptions(**({"receive_bytes": MIB, "metadata_bytes": 16 * 1024} | changed))


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    body: bytes

    @property
    def code(self) -> int:
        """Of RST_STREAM and GOAWAY."""
        return int.from_bytes(self.body[:4] if self.kind == RST_STREAM else self.body[4:8])


class Wire:
    """An HTTP/2 connection that sends only what the test says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, kind: int, body: bytes = b"", *, flags: int = 0, stream: int = 0) -> None:
        self.write(struct.pack(">I", len(body))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + body)

    def write(self, raw: bytes) -> None:
        self.writer.write(raw)

    def greet(self) -> None:
        self.write(PREFACE)
        self.send(SETTINGS)

    def call(self, stream: int, message: bytes) -> None:
        names = {":method": "POST", ":scheme": "http", ":path": METHOD, ":authority": "x", "content-type": "application/grpc"}
        block = b"".join(b"\0" + _counted(name) + _counted(value) for name, value in (names | {"te": "trailers"}).items())
        self.send(HEADERS, block, flags=4, stream=stream)
        self.send(DATA, b"\0" + struct.pack(">I", len(message)) + message, stream=stream)

    async def receive(self, kind: int | None = None, *, answer: bool = True) -> Frame | None:
        """The next frame, of that kind; None: the server has closed. `answer`: its pings."""
        async with asyncio.timeout(WAIT_TIMEOUT):
            while True:
                try:
                    head = await self.reader.readexactly(9)
                    body = await self.reader.readexactly(int.from_bytes(head[:3]))
                except (asyncio.IncompleteReadError, ConnectionError):
                    return None
                frame = Frame(head[3], head[4], int.from_bytes(head[5:]), body)
                if answer and (frame.kind, frame.flags) == (PING, 0):
                    self.send(PING, body, flags=ACK)
                if kind is None or frame.kind == kind:
                    return frame

    async def settings(self) -> dict[int, int] | None:
        frame = await self.receive(SETTINGS)
        return None if frame is None else dict(struct.iter_unpack(">HI", frame.body))

    def close(self) -> None:
        self.writer.close()


def _counted(text: str) -> bytes:
    return bytes((len(text),)) + text.encode()


class Served:
    """A server and what it sees. A call whose request is `wait` ends when `go` is set."""

    def __init__(self) -> None:
        self.port = 0
        self.calls = self.running = self.peak = 0
        self.begun = asyncio.Semaphore(0)
        self.go = asyncio.Event()

    async def handle(self, request: bytes, context) -> bytes:
        self.calls += 1
        self.running += 1
        self.peak = max(self.peak, self.running)
        self.begun.release()
        try:
            if request == b"wait":
                await self.go.wait()
            return context.peer().encode()
        finally:
            self.running -= 1

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.handle)

    def channel(self, *, retries: bool = False) -> aio.Channel:
        """A connection of its own, without the client's own limits and, unless `retries`, without its retries."""
        own = ("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", int(retries))
        limits = ("grpc.max_metadata_size", MIB), ("grpc.absolute_max_metadata_size", MIB), ("grpc.max_send_message_length", -1)
        return aio.insecure_channel(f"127.0.0.1:{self.port}", (*own, *limits))

    @asynccontextmanager
    async def wire(self, *, greet: bool = True) -> AsyncIterator[Wire]:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        if greet:
            wire.greet()
        try:
            yield wire
        finally:
            wire.close()


@asynccontextmanager
async def serving(served: Served | None = None, **changed) -> AsyncIterator[Served]:
    served = served or Served()
    server = aio.server(options=options(**changed).arguments())
    server.add_generic_rpc_handlers((served,))
    served.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield served
    finally:
        served.go.set()
        await server.stop(0)


async def ask(channel: aio.Channel, request: bytes = b"", metadata: tuple[tuple[str, str], ...] = ()) -> bytes:
    return await channel.unary_unary(METHOD)(request, metadata=metadata, timeout=WAIT_TIMEOUT)


async def code_of(channel: aio.Channel, request: bytes = b"", metadata: tuple[tuple[str, str], ...] = ()) -> grpc.StatusCode:
    try:
        await ask(channel, request, metadata)
    except aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def header(kib: int) -> tuple[tuple[str, str], ...]:
    return (("x-a", "a" * kib * 1024),)


PING_TIMEOUT = "grpc.http2.ping_timeout_ms"
ALL = {
    "receive_bytes": (101, "grpc.max_receive_message_length", 101),
    "decompress": (True, "grpc.per_message_decompression", 1),
    "send_bytes": (102, "grpc.max_send_message_length", 102),
    "metadata_bytes": (103, "grpc.max_metadata_size", 103),
    "metadata_bytes_hard": (104, "grpc.absolute_max_metadata_size", 104),
    "connections": (105, "grpc.max_allowed_incoming_connections", 105),
    "streams": (106, "grpc.max_concurrent_streams", 106),
    "count_ended_calls": (True, "grpc.http.overload_protection", 1),
    "handshake_seconds": (0.107, "grpc.server_handshake_timeout_ms", 107),
    "idle_seconds": (0.108, "grpc.max_connection_idle_ms", 108),
    "age_seconds": (0.109, "grpc.max_connection_age_ms", 109),
    "age_grace_seconds": (0.11, "grpc.max_connection_age_grace_ms", 110),
    "ping_interval_seconds": (0.111, "grpc.http2.min_ping_interval_without_data_ms", 111),
    "ping_strikes": (112, "grpc.http2.max_ping_strikes", 112),
    "pings_without_calls": (True, "grpc.keepalive_permit_without_calls", 1),
    "keepalive_seconds": (0.114, "grpc.keepalive_time_ms", 114),
    "keepalive_timeout_seconds": (0.115, "grpc.keepalive_timeout_ms", 115),
    "lookahead_bytes": (116, "grpc.http2.lookahead_bytes", 116),
    "probe_bandwidth": (True, "grpc.http2.bdp_probe", 1),
    "share_port": (True, "grpc.so_reuseport", 1),
}


def test_every_field_is_passed_under_its_name_and_in_its_unit() -> None:
    assert set(ALL) == {each.name for each in fields(ChannelOptions)}
    given = ChannelOptions(**{field: value for field, (value, _, _) in ALL.items()})
    expected = [(name, value) for _, name, value in ALL.values()]
    assert sorted(given.arguments()) == sorted([*expected, (PING_TIMEOUT, 115)])
    assert all(type(value) is int for _, value in given.arguments())


def test_grpc_knows_every_name() -> None:
    core = next(Path(grpc.__file__).parent.glob("*/cygrpc*")).read_bytes()
    names = [PING_TIMEOUT, *(name for _, name, _ in ALL.values())]
    assert [name for name in names if name.encode() + b"\0" not in core] == []
    assert b"grpc.max_concurent_streams\0" not in core


def test_none_leaves_grpcs_default() -> None:
    names = dict(options(connections=None, streams=None, idle_seconds=None).arguments())
    for name in ("grpc.max_allowed_incoming_connections", "grpc.max_concurrent_streams", "grpc.max_connection_idle_ms"):
        assert name not in names


@pytest.mark.parametrize(
    "wrong",
    [
        {"connections": 0},
        {"streams": 0},
        {"streams": 2**31},
        {"receive_bytes": -2},
        {"metadata_bytes": -1},
        {"metadata_bytes_hard": 16 * 1024 - 1},
        {"idle_seconds": 0.0001},
        {"idle_seconds": 30 * 86400.0},
        {"ping_strikes": -1},
        {"age_seconds": -1.0},
    ],
)
def test_a_value_that_grpc_would_misread_is_refused(wrong) -> None:
    with pytest.raises(ChannelOptionsError, match=next(iter(wrong))):
        options(**wrong)


async def test_a_connection_over_the_limit_is_closed_until_another_ends() -> None:
    async with serving(connections=2) as served, served.wire() as first, served.wire(greet=False) as silent:
        assert await first.settings() is not None
        assert await silent.settings() is not None
        async with served.wire() as third:
            assert await third.settings() is None
        first.close()
        async with asyncio.timeout(WAIT_TIMEOUT), served.channel() as channel:
            assert await channel.unary_unary(METHOD)(b"", wait_for_ready=True)


async def test_a_client_holds_calls_over_the_limit_back_and_loses_none() -> None:
    async with serving(streams=2) as served, served.channel() as channel, asyncio.timeout(WAIT_TIMEOUT):
        held = [asyncio.ensure_future(ask(channel, b"wait")) for _ in range(2)]
        for _ in range(2):
            await served.begun.acquire()
        calls = [asyncio.ensure_future(ask(channel)) for _ in range(300)]
        served.go.set()
        assert len(set(await asyncio.gather(*held, *calls))) == 1
        assert served.peak == 2


async def test_calls_sent_over_the_limit_are_refused_and_the_others_served() -> None:
    async with serving(streams=2) as served, served.wire() as wire:
        assert (await wire.settings())[MAX_CONCURRENT_STREAMS] == 2
        wire.send(SETTINGS, flags=ACK)
        for stream in (1, 3, 5):
            wire.call(stream, b"wait")
        refused = await wire.receive(RST_STREAM)
        assert (refused.stream, refused.code) == (5, REFUSED_STREAM)
        served.go.set()
        assert {(await wire.receive(DATA)).stream for _ in range(2)} == {1, 3}


async def test_headers_over_the_limit_are_refused() -> None:
    async with serving(metadata_bytes=64 * 1024) as served, served.channel() as channel:
        assert [await code_of(channel, metadata=header(60)) for _ in range(5)] == [grpc.StatusCode.OK] * 5
        assert await code_of(channel, metadata=header(81)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert served.calls == 5


async def test_headers_over_the_hard_limit_are_always_refused() -> None:
    hard = serving(metadata_bytes=64 * 1024, metadata_bytes_hard=64 * 1024)
    async with hard as served, served.channel() as channel:
        assert {await code_of(channel, metadata=header(68)) for _ in range(10)} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert served.calls == 0


async def test_a_message_over_the_limit_is_refused() -> None:
    async with serving(receive_bytes=1000, send_bytes=5) as served, served.channel() as channel:
        assert await code_of(channel, bytes(1001)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert served.peak == 0
        assert await code_of(channel, bytes(1000)) is grpc.StatusCode.RESOURCE_EXHAUSTED  # the answer is longer than 5
        assert served.peak == 1


async def ping(wire: Wire, times: int, pause: float = 0.0) -> Frame | None:
    """Each answered before the next; returns a GOAWAY that came instead of an answer."""
    for number in range(times):
        wire.send(PING, struct.pack(">Q", number))
        while (frame := await wire.receive()) is not None and (frame.kind, frame.flags) != (PING, ACK):
            if frame.kind == GOAWAY:
                return frame
        await asyncio.sleep(pause)
    return None


@pytest.mark.parametrize("strikes", [2, 5])
async def test_a_flood_of_pings_ends_its_connection(strikes) -> None:
    async with serving(ping_strikes=strikes, pings_without_calls=True) as served, served.wire() as wire:
        assert await ping(wire, strikes + 1) is None  # the first is no strike
        goaway = await ping(wire, 2)
        assert (goaway.code, goaway.body[8:]) == (ENHANCE_YOUR_CALM, b"too_many_pings")
        assert await wire.receive(GOAWAY) is None  # and is closed


async def test_messages_are_not_decompressed() -> None:
    """Nobody is known yet when gRPC would do it; see interceptors.handlers.compression."""
    seen: list[bytes] = []

    class Keeping(Served):
        async def handle(self, request: bytes, context) -> bytes:
            seen.append(request)
            return b""

    async with serving(served=Keeping()) as served, served.channel() as channel:
        await channel.unary_unary(METHOD)(bytes(10_000), compression=grpc.Compression.Gzip, timeout=WAIT_TIMEOUT)
    assert gzip.decompress(seen[0]) == bytes(10_000)


async def test_a_message_over_the_limit_is_refused_by_its_prefix() -> None:
    async with serving(receive_bytes=1000) as served, http2(f"127.0.0.1:{served.port}") as client:
        await client.send(client.request(1, METHOD), client.data(1, client.message(b"", length=1001)))
        assert (await client.fields(1))["grpc-status"] == str(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
        assert served.calls == 0


async def test_pings_within_the_interval_are_answered() -> None:
    async with serving(ping_interval_seconds=0.001, pings_without_calls=True) as served, served.wire() as wire:
        assert await ping(wire, 20, pause=0.005) is None


async def test_a_connection_without_calls_may_ping_only_every_2_hours() -> None:
    async with serving(ping_interval_seconds=0.001) as served, served.wire() as wire:
        assert (await ping(wire, 20, pause=0.005)).code == ENHANCE_YOUR_CALM


async def test_a_connection_that_does_not_answer_is_closed_with_its_calls() -> None:
    async with serving(keepalive_seconds=SHORT, keepalive_timeout_seconds=SHORT) as served, served.wire() as wire:
        wire.call(1, b"wait")
        await served.begun.acquire()
        assert (await wire.receive(GOAWAY, answer=False)).body[8:] == b"ping_timeout"
        assert await wire.receive(RST_STREAM) is not None


async def test_a_connection_without_calls_is_closed() -> None:
    async with serving(idle_seconds=SHORT) as served, served.wire() as wire:
        assert (await wire.receive(GOAWAY)).body[8:] == b"connection idle"


@pytest.mark.parametrize("sent", [b"", PREFACE[:10], PREFACE])
async def test_a_silent_connection_is_closed_and_another_accepted(sent) -> None:
    async with serving(handshake_seconds=SHORT, connections=1) as served, served.wire(greet=False) as wire:
        wire.write(sent)
        goaway = await wire.receive(GOAWAY)
        assert b"before handshake timeout" in goaway.body
        assert await wire.receive(GOAWAY) is None
        async with served.channel() as channel:
            assert await channel.unary_unary(METHOD)(b"", wait_for_ready=True, timeout=WAIT_TIMEOUT)


async def test_no_call_fails_when_an_old_connection_is_replaced() -> None:
    """With the retries that are gRPC's default: a call that crosses the GOAWAY is sent again."""
    async with serving(age_seconds=SHORT) as served, served.channel(retries=True) as channel, asyncio.timeout(WAIT_TIMEOUT):
        long = asyncio.ensure_future(ask(channel, b"wait"))
        await served.begun.acquire()
        first = await ask(channel)
        while await ask(channel) == first:  # none may fail, whichever connection it is on
            await served.begun.acquire()
        assert not long.done()
        served.go.set()
        assert await long == first


async def test_an_old_connection_is_asked_to_go_before_it_is_closed() -> None:
    async with serving(age_seconds=SHORT) as served, served.wire() as wire:
        goaway = await wire.receive(GOAWAY)
        assert (goaway.code, goaway.body[8:]) == (0, b"max_age")
        assert int.from_bytes(goaway.body[:4]) == 2**31 - 1  # what was sent before this arrives is still served
        assert int.from_bytes((await wire.receive(GOAWAY)).body[:4]) == 0
        assert await wire.receive(GOAWAY) is None


async def test_a_call_that_outlives_an_old_connection_by_the_grace_ends() -> None:
    async with serving(age_seconds=SHORT, age_grace_seconds=SHORT) as served, served.channel() as channel:
        assert await code_of(channel, b"wait") is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(("lookahead", "window"), [(MIB, MIB), (256 * 1024, 256 * 1024)])
async def test_a_sender_may_write_ahead_as_far_as_set(lookahead, window) -> None:
    async with serving(lookahead_bytes=lookahead) as served, served.wire() as wire:
        assert (await wire.settings())[INITIAL_WINDOW] == window


async def test_a_second_server_on_the_port_does_not_start() -> None:
    async with serving() as served:
        second = aio.server(options=options().arguments())
        with pytest.raises(RuntimeError, match="Failed to bind"):
            second.add_insecure_port(f"127.0.0.1:{served.port}")
