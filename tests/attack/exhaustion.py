"""Callers that take what others need: connections, memory, slots, time. The well-behaved caller of `watch` must not notice."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import urllib.request
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

from tests.attack.arena import ALIGN, INFO, STREAM, Arena, Attack, align, answer, held, unary, upload
from tests.attack.frames import CHECK, healthy
from tests.kit.guarded import bearer
from tests.kit.http2 import Connection, http2
from tests.kit.recordings import SPEECH

WATCH, LIST = "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/List"
_HOLD = 1.5
"""Seconds that an attack goes on: the well-behaved caller calls once or twice meanwhile, and connections are looked at."""


def exempt() -> Iterator[Attack]:
    """Methods that need no credential: large and compressed messages, and what is not implemented."""

    async def message(arena: Arena, path: str, body: bytes, encoding: str, expected: str) -> str:
        extra = [("grpc-encoding", encoding)] if encoding else []
        async with http2(arena.plain.target, tls=arena.plain.tls(), source="127.8.0.1") as connection:
            with contextlib.suppress(OSError):
                await connection.send(connection.request(1, path, *extra))
                await connection.send(*_frames(connection, connection.message(body, compressed=bool(encoding))))
            found: dict[str, str] = {}
            with contextlib.suppress(OSError, TimeoutError):
                found = await connection.fields(1, 10.0)
        status = found.get("grpc-status", "closed" if connection.closed else "none")
        return "" if status != "0" and expected in {"", status} else f"status {status}"

    field = b"\x0a"  # service, the only field of a HealthCheckRequest
    for path in (CHECK, WATCH):
        for size in (257, 1000, 16_000, 64_000, 1 << 20, 4 << 20, 21 << 20):
            body = field + _varint(size) + b"a" * size
            for encoding, packed in (("", body), ("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
                name = f"{path} of {size} bytes {encoding or 'plain'}"
                yield Attack(name, lambda arena, p=path, b=packed, e=encoding: message(arena, p, b, e, ""))
    for path in ("/grpc.health.v1.Health/X", "/grpc.health.v1.Health/check", "/grpc.health.v1.Health/"):
        yield Attack(f"unimplemented {path}", lambda arena, path=path: _unimplemented(arena, path))
    yield Attack("List", _listed)


async def _unimplemented(arena: Arena, path: str) -> str:
    return held(await unary(arena.channel, path, b""), "METHOD_UNKNOWN", "UNIMPLEMENTED", "CREDENTIALS_MISSING")


async def _listed(arena: Arena) -> str:
    found = await unary(arena.channel, LIST, b"")
    return "" if found.code in {"OK", "UNIMPLEMENTED"} else held(found)


def connections() -> Iterator[Attack]:
    """Connections that are opened and not used, on the port of the service and on that of the metrics."""

    def of(
        name: str, opened: Callable[[Arena], contextlib.AbstractAsyncContextManager[None]], *, metrics: bool = False
    ) -> Attack:
        async def run(arena: Arena) -> str:
            async with opened(arena):
                await asyncio.sleep(_HOLD)
                return await (_ready(arena) if metrics else healthy(arena))

        return Attack(name, run)

    yield of("1,000 that say nothing", lambda arena: _silent(arena.plain.target, 1000))
    yield of("1,000 that say nothing, of 10 hosts", lambda arena: _silent(arena.plain.target, 1000, hosts=10))
    yield of("300 after the handshake", lambda arena: _idle(arena, 300))
    yield of("300 after a preface", lambda arena: _idle(arena, 300, preface=True))
    yield of("300 with a call that never ends", lambda arena: _idle(arena, 300, preface=True, call=True))
    yield of("32 silent ones of the metrics", lambda arena: _silent(arena.plain.metrics, 32), metrics=True)
    yield of("100 silent ones of the metrics", lambda arena: _silent(arena.plain.metrics, 100), metrics=True)
    yield of("100 slow ones of the metrics", lambda arena: _slow_headers(arena, 100), metrics=True)


async def _ready(arena: Arena) -> str:
    def read() -> int:
        with urllib.request.urlopen(f"http://{arena.plain.metrics}/ready", timeout=5) as reply:
            return int(reply.status)

    try:
        return "" if await asyncio.to_thread(read) == 200 else "not ready"
    except OSError as error:
        return f"/ready: {error}"


@asynccontextmanager
async def _silent(target: str, count: int, *, hosts: int = 1) -> AsyncIterator[None]:
    """TCP alone."""
    host, _, port = target.rpartition(":")
    sockets = []
    try:
        for number in range(count):
            one = socket.socket()
            one.setblocking(False)
            one.bind((f"127.7.0.{number % hosts + 1}", 0))
            with contextlib.suppress(OSError):
                one.connect((host, int(port)))
            sockets.append(one)
            if number % 50 == 0:
                await asyncio.sleep(0.01)
        yield
    finally:
        for one in sockets:
            one.close()


@asynccontextmanager
async def _idle(arena: Arena, count: int, *, preface: bool = False, call: bool = False) -> AsyncIterator[None]:
    """Through TLS, all from one address."""
    opened: list[Connection] = []

    async def one() -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(20):
                connection = await Connection.open(arena.plain.target, tls=arena.plain.tls(), source="127.7.1.1")
                opened.append(connection)
                if preface:
                    await connection.begin()
                if call:
                    await connection.send(connection.request(1, ALIGN), connection.data(1, b"\0"))

    try:
        for _ in range(0, count, 25):
            await asyncio.gather(*(one() for _ in range(25)))
        yield
    finally:
        for connection in opened:
            await connection.drop()


@asynccontextmanager
async def _slow_headers(arena: Arena, count: int) -> AsyncIterator[None]:
    """A byte of a request now and then."""
    host, _, port = arena.plain.metrics.rpartition(":")
    writers = [(await asyncio.open_connection(host, int(port), local_addr=("127.7.2.1", 0)))[1] for _ in range(count)]

    async def drip() -> None:
        for byte in b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 1000:
            for writer in writers:
                with contextlib.suppress(OSError):
                    writer.write(bytes([byte]))
            await asyncio.sleep(0.2)

    dripping = asyncio.create_task(drip())
    try:
        yield
    finally:
        dripping.cancel()
        for writer in writers:
            writer.close()


def half_open() -> Iterator[Attack]:
    """Calls and uploads that do not end, of callers that are known and that are not."""

    async def calls(arena: Arena, callers: int, each: int, path: str, *, first: bytes = b"", known: bool = True) -> str:
        """`each` calls of each of `callers` principals, with a first message and no end."""
        forge = arena.plain.home.forge
        running = []
        async with AsyncExitStack() as stack:
            for number in range(callers):
                channel = await stack.enter_async_context(arena.plain.channel())
                token = bearer(forge.token(forge.claims(sub=f"greedy-{number}")))
                for _ in range(each):
                    call = channel.stream_stream(path)(metadata=[token] if known else [])
                    running.append(call)
                    if first:
                        with contextlib.suppress(Exception, asyncio.CancelledError):
                            await asyncio.wait_for(call.write(first), 1.0)
            await asyncio.sleep(_HOLD)
            found = await _well(arena)
            for call in running:
                call.cancel()
        return found

    config, chunk = upload([SPEECH[:2000]])
    for callers, each in ((1, 64), (4, 64), (1, 500)):
        yield Attack(f"{callers} x {each} empty Align", lambda arena, c=callers, e=each: calls(arena, c, e, ALIGN))
        yield Attack(
            f"{callers} x {each} empty Align, anonymous", lambda arena, c=callers, e=each: calls(arena, c, e, ALIGN, known=False)
        )
        yield Attack(f"{callers} x {each} empty StreamAlign", lambda arena, c=callers, e=each: calls(arena, c, e, STREAM))
        yield Attack(f"{callers} x {each} empty GetServerInfo", lambda arena, c=callers, e=each: calls(arena, c, e, INFO))
    for each in (8, 16, 64):
        for name, first in (("a config", config), ("audio", chunk)):
            yield Attack(f"{each} StreamAlign with {name}", lambda arena, e=each, f=first: calls(arena, 1, e, STREAM, first=f))
    for each in (100, 1000):
        name = f"{each} Watches of unknown names"
        yield Attack(name, lambda arena, e=each: calls(arena, 1, e, WATCH, first=b"\x0a\xc8\x01" + b"a" * 200, known=False))
    yield Attack("Watches with a window of 0", _no_window)
    yield Attack("answers that are not taken", lambda arena: _no_window(arena, path=ALIGN))


async def _well(arena: Arena) -> str:
    """Whether another principal's call is answered."""
    forge = arena.plain.home.forge
    other = bearer(forge.token(forge.claims(sub="well-behaved")))
    async with arena.plain.channel() as channel:
        call = channel.unary_unary(ALIGN)
        found = await answer(lambda: call(align(), metadata=[other], timeout=10.0), patient=False)
    return "" if found.code == "OK" else held(found) or found.code


async def _no_window(arena: Arena, path: str = WATCH) -> str:
    """SETTINGS_INITIAL_WINDOW_SIZE of 0: what the server writes does not go out."""
    token = arena.token
    async with AsyncExitStack() as stack:
        for number in range(20):
            source = f"127.7.3.{number + 1}"
            connection = await stack.enter_async_context(http2(arena.plain.target, {4: 0}, tls=arena.plain.tls(), source=source))
            for stream in (1, 3, 5):
                body = align() if path == ALIGN else b""
                with contextlib.suppress(OSError):
                    await connection.send(connection.request(stream, path, token))
                    await connection.send(*_frames(connection, connection.message(body), stream))
        await asyncio.sleep(_HOLD)
        return await healthy(arena) or await _well(arena)


def deadlines() -> Iterator[Attack]:
    """Calls whose time is over before they begin: DEADLINE_EXCEEDED, and no error in the log."""

    async def late(arena: Arena, seconds: float, make: Callable[[Arena, float], Awaitable[str]]) -> str:
        found = await asyncio.gather(*(make(arena, seconds) for _ in range(20)))
        return next((one for one in found if one), "")

    async def info(arena: Arena, seconds: float) -> str:
        call = arena.channel.unary_unary(INFO)
        found = await answer(lambda: call(b"", metadata=[arena.token], timeout=seconds), patient=False)
        return "" if found.code == "OK" else held(found, "DEADLINE_EXCEEDED", "DEADLINE_EXPIRED")

    async def aligned(arena: Arena, seconds: float) -> str:
        call = arena.channel.unary_unary(ALIGN)
        found = await answer(lambda: call(align(), metadata=[arena.token], timeout=seconds), patient=False)
        allowed = ("DEADLINE_EXCEEDED", "DEADLINE_EXPIRED", "DEADLINE_UNREACHABLE", "SERVER_OVERLOADED")
        return "" if found.code == "OK" else held(found, *allowed)

    async def streamed(arena: Arena, seconds: float) -> str:
        call = arena.channel.stream_stream(STREAM)
        parts = upload([SPEECH])
        found = await answer(lambda: call(iter(parts), metadata=[arena.token], timeout=seconds), patient=False)
        allowed = ("DEADLINE_EXCEEDED", "DEADLINE_EXPIRED", "DEADLINE_UNREACHABLE", "SERVER_OVERLOADED")
        return "" if found.code == "OK" else held(found, *allowed)

    for seconds in (1e-9, 1e-6, 1e-4, 1e-3, 5e-3, 0.02, 0.05):
        for name, make in (("info", info), ("align", aligned), ("stream", streamed)):
            yield Attack(f"20 {name} of {seconds:g} s", lambda arena, s=seconds, m=make: late(arena, s, m))


def _frames(connection: Connection, message: bytes, stream: int = 1) -> list[bytes]:
    """Of 16 KB at most; the window of the connection is not minded."""
    parts = [message[at : at + 16_000] for at in range(0, len(message), 16_000)]
    return [connection.data(stream, part, end=number == len(parts) - 1) for number, part in enumerate(parts)]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
