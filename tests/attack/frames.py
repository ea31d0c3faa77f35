"""HTTP/2 that no client sends: header values, frames and floods, from addresses of their own and without a credential."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence

from tests.attack.arena import ALIGN, Arena, Attack, align
from tests.kit.http2 import PREFACE, Connection, http2, settings

CHECK = "/grpc.health.v1.Health/Check"
_SECONDS = 10.0
logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # says of every connection that is cut that it was
_ADDRESSES = itertools.cycle(f"127.9.{n // 250}.{n % 250 + 1}" for n in range(2500))
Raw = Callable[[Connection], Awaitable[None]]

PATHS = (
    b"/\xff", b"\xff", b"/aligner.v1.Aligner/\xff", b"/\xff/Align", b"/\xc3(", b"/\xc0\xaf", b"/\xed\xa0\x80",
    b"/\xf4\x90\x80\x80", b"/grpc.health.v1.Health/\xfe", b"", b"*", b"/",
    b"/ ", b"/\x7f", b"/" + b"a" * 7000, b"/" + b"\x80" * 2000,
    "/\u00e4".encode(),
)  # fmt: skip
FIELDS: Sequence[tuple[bytes | str, bytes | str]] = (
    (":authority", b"\xff"), (":authority", b""), (":scheme", b"\xff"), (":scheme", b"ftp"), (":method", b"GET"),
    (":method", b"\xff"), (":method", b"CONNECT"), ("content-type", b"\xff"), ("content-type", b"text/html"), ("te", b"\xff"),
    ("grpc-encoding", b"\xff"), ("grpc-encoding", b"zstd"), ("grpc-accept-encoding", b"\xff" * 100), ("user-agent", b"\xff\xfe"),
    ("user-agent", b"a" * 4000), ("x-request-id", b"\xff"), ("x-request-id", b"a" * 5000), ("authorization", b"Bearer \xff"),
    ("authorization", b"\xff"), ("x-api-key", b"\xff"), ("traceparent", b"\xff"), ("tracestate", b"\xff" * 500),
    ("baggage", b"\xff"),
    ("X-UPPER", b"a"), ("x\n", b"a"), ("x", b"a\nb"), ("x", b"a\0b"), ("", b"a"), ("x-bin", b"!!"), ("x-bin", b"a" * 5),
    ("grpc-previous-rpc-attempts", b"-1"), ("grpc-tags-bin", b"\xff"), ("content-length", b"-1"),
    ("content-length", b"99999999999999"),
    ("transfer-encoding", b"chunked"), ("connection", b"close"), ("host", b"\xff"), ("cookie", b"\xff"), (":unknown", b"x"),
    ("grpc-status", b"0"), ("grpc-message", b"%"), ("lb-token", b"\xff"), ("lb-cost-bin", b"AAAA"),
    ("grpc-retry-pushback-ms", b"x"),
)  # fmt: skip
TIMEOUTS = (
    "1n",
    "0n",
    "1u",
    "0S",
    "-1S",
    "99999999H",
    "999999999S",
    "1",
    "S",
    "",
    "1x",
    "1 S",
    "\u0661S",
    "1e3S",
    "0x1S",
    "1m1m",
)


def header_values() -> Iterator[Attack]:
    """Bytes that are no text, and values that no client sends, for a method that needs no credential and one that does."""

    def of(name: str, path: bytes | str, *extra: tuple[bytes | str, bytes | str]) -> Attack:
        async def raw(connection: Connection) -> None:
            # Instead of the usual value where there is one: a second one is an error by itself.
            usual: dict[bytes | str, bytes | str] = {
                ":method": "POST", ":scheme": "https", ":path": path, ":authority": "localhost",
                "content-type": "application/grpc",
                "te": "trailers",
            }  # fmt: skip
            await connection.send(connection.headers(1, list((usual | dict(extra)).items())))
            await connection.send(connection.data(1, connection.message(b""), end=True))
            await connection.fields(1, 2.0)

        return _attack(name, raw)

    for path in PATHS:
        yield of(f":path {path[:30]!r}", path)
    for name, value in FIELDS:
        for path in (CHECK, ALIGN):
            yield of(f"{name!r} {value[:20]!r} {path}", path, (name, value))
    for timeout in TIMEOUTS:
        for path in (CHECK, ALIGN):
            yield of(f"grpc-timeout {timeout!r} {path}", path, ("grpc-timeout", timeout.encode()))


def broken_frames() -> Iterator[Attack]:
    """Frames in the wrong place, of the wrong size, or that contradict each other."""
    frames: dict[str, bytes] = {
        "DATA on stream 0": _frame(0, 0, 0, b"x"),
        "DATA on an idle stream": _frame(0, 0, 5, b"x"),
        "DATA with padding beyond its end": _frame(0, 8, 1, b"\xff"),
        "HEADERS on stream 0": _frame(1, 4, 0, b"\x82"),
        "HEADERS on an even stream": _frame(1, 5, 2, b"\x82\x86\x84"),
        "HEADERS that depend on themselves": _frame(1, 0x24, 1, struct.pack(">LB", 1, 0) + b"\x82"),
        "HEADERS with padding beyond their end": _frame(1, 0xC, 1, b"\xff"),
        "HEADERS with an index that is not there": _frame(1, 5, 1, b"\xff\xff\xff\xff\x0f"),
        "HEADERS with index 0": _frame(1, 5, 1, b"\x80"),
        "HEADERS with a table of 4 GiB": _frame(1, 5, 1, b"\x3f\xff\xff\xff\xff\x0f"),
        "HEADERS with Huffman padding": _frame(1, 5, 1, b"\x00\x84\xff\xff\xff\xff\x01a"),
        "HEADERS of nothing": _frame(1, 5, 1, b""),
        "HEADERS without an end": _frame(1, 0, 1, b"\x82"),
        "HEADERS interrupted by PING": _frame(1, 0, 1, b"\x82") + _frame(6, 0, 0, bytes(8)),
        "PRIORITY of 4 bytes": _frame(2, 0, 1, bytes(4)),
        "PRIORITY on itself": _frame(2, 0, 1, struct.pack(">LB", 1, 0)),
        "RST_STREAM on stream 0": _frame(3, 0, 0, bytes(4)),
        "RST_STREAM on an idle stream": _frame(3, 0, 9, bytes(4)),
        "RST_STREAM of 3 bytes": _frame(3, 0, 1, bytes(3)),
        "SETTINGS of 5 bytes": _frame(4, 0, 0, bytes(5)),
        "SETTINGS on a stream": _frame(4, 0, 1, b""),
        "SETTINGS ack with contents": _frame(4, 1, 0, bytes(6)),
        "SETTINGS with a window of 2^31": settings([(4, 1 << 31)]),
        "SETTINGS with frames of nothing": settings([(5, 0)]),
        "SETTINGS with frames of 4 GiB": settings([(5, 0xFFFFFFFF)]),
        "SETTINGS with push of 2": settings([(2, 2)]),
        "SETTINGS with a table of 4 GiB": settings([(1, 0xFFFFFFFF)]),
        "SETTINGS that are unknown": settings([(n, n) for n in range(100, 2000)]),
        "PUSH_PROMISE of a client": _frame(5, 4, 1, struct.pack(">L", 2) + b"\x82"),
        "PING of 7 bytes": _frame(6, 0, 0, bytes(7)),
        "PING on a stream": _frame(6, 0, 1, bytes(8)),
        "PING ack that nobody asked for": _frame(6, 1, 0, bytes(8)) * 100,
        "GOAWAY of a client": _frame(7, 0, 0, bytes(8)),
        "GOAWAY with 16 KB": _frame(7, 0, 0, bytes(16000)),
        "WINDOW_UPDATE of 0": _frame(8, 0, 0, bytes(4)),
        "WINDOW_UPDATE beyond 2^31": _frame(8, 0, 0, b"\x7f\xff\xff\xff") * 2,
        "WINDOW_UPDATE on an idle stream": _frame(8, 0, 7, b"\0\0\0\1"),
        "CONTINUATION alone": _frame(9, 4, 1, b"\x82"),
        "CONTINUATION on another stream": _frame(1, 0, 1, b"\x82") + _frame(9, 4, 3, b"\x84"),
        "a frame of 16 MiB": b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(100_000),
        "a kind that is unknown": _frame(0xFE, 0xFF, 1, bytes(1000)),
        "the reserved bit": _frame(6, 0, 1 << 31, bytes(8)),
    }
    for name, raw in frames.items():
        yield _attack(name, lambda connection, raw=raw: _sent(connection, raw))
    beginnings = {
        "nothing": b"", "half a preface": PREFACE[:10], "HTTP/1.1": b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        "HTTP/0.9": b"GET /\r\n", "zeros": bytes(100_000),
        "TLS in TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        "two prefaces": PREFACE * 2, "a preface and noise": PREFACE + b"\xa5" * 50_000,
        "an upgrade": b"PRI * HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
    }  # fmt: skip
    for name, raw in beginnings.items():
        yield _attack(f"begins with {name}", lambda connection, raw=raw: _sent(connection, raw), begun=False)


def floods() -> Iterator[Attack]:
    """Frames without an end. Of the kinds that belong to no call the server has to close the connection."""
    block = _frame(1, 0, 1, b"\x82")
    table = b"\x40\x01x" + b"\x7f\xe1\x1e" + b"a" * 4000  # a field of 4 KB into the table of HPACK
    endless: dict[str, tuple[bytes, bytes, int]] = {
        "CONTINUATION": (block, _frame(9, 0, 1, b"\x00\x01x\x01y" * 2000), 3000),
        "CONTINUATION of nothing": (block, _frame(9, 0, 1, b"") * 1000, 3000),
        "PING": (b"", _frame(6, 0, 0, bytes(8)) * 500, 2000),
        "SETTINGS": (b"", settings([(3, 100)]) * 500, 2000),
        "SETTINGS of nothing": (b"", _frame(4, 0, 0, b"") * 500, 2000),
        "WINDOW_UPDATE": (b"", _frame(8, 0, 0, b"\0\0\0\1") * 500, 2000),
        "PRIORITY": (b"", _frame(2, 0, 3, struct.pack(">LB", 0, 1)) * 500, 2000),
        "unknown kinds": (b"", _frame(0xAB, 0, 0, bytes(100)) * 200, 2000),
    }
    for name, (first, again, most) in endless.items():
        yield _attack(name, lambda connection, f=first, a=again, m=most: _flood(connection, f, a, m), closes=True)

    async def resets(connection: Connection, *, authorised: bool) -> None:
        for number in range(4000):
            extra = [("authorization", "Bearer x")] if authorised else []
            await connection.send(
                connection.request(number * 2 + 1, ALIGN, *extra), _frame(3, 0, number * 2 + 1, struct.pack(">L", 8))
            )

    async def many(connection: Connection, path: str, body: bytes, *, count: int = 1000) -> None:
        """More streams than are allowed, none of which ends."""
        for number in range(count):
            stream = number * 2 + 1
            await connection.send(connection.request(stream, path), connection.data(stream, body))
        await connection.read(1.0)

    async def empty_data(connection: Connection) -> None:
        await connection.send(connection.request(1, ALIGN), connection.data(1, b"") * 20_000)

    async def padding(connection: Connection) -> None:
        await connection.send(connection.request(1, ALIGN), _frame(0, 8, 1, b"\xff" + bytes(255)) * 200)

    async def hpack_bomb(connection: Connection) -> None:
        await connection.send(_frame(1, 4, 1, b"\x82\x87\x84" + table + b"\xbe" * 12_000))
        await connection.read(1.0)

    yield _attack("rapid resets", lambda connection: resets(connection, authorised=False))
    yield _attack("rapid resets with a token", lambda connection: resets(connection, authorised=True))
    yield _attack("half-open health checks", lambda connection: many(connection, CHECK, b""))
    yield _attack("half-open aligns", lambda connection: many(connection, ALIGN, b"\0\xff\xff\xff\xff"))
    yield _attack("half-open unknown methods", lambda connection: many(connection, "/a/b", b""))
    yield _attack(
        "half-open aligns with a body",
        lambda connection: many(connection, ALIGN, connection.message(align()[:10_000]), count=300),
    )
    yield _attack("empty DATA", empty_data)
    yield _attack("padding", padding)
    yield _attack("a bomb of HPACK", hpack_bomb)


def _attack(name: str, raw: Raw, *, begun: bool = True, closes: bool = False) -> Attack:
    """`closes`: the server has to close the connection by itself."""

    async def run(arena: Arena) -> str:
        closed = False
        tls, source = arena.plain.tls(), next(_ADDRESSES)
        try:
            async with asyncio.timeout(_SECONDS):
                if begun:
                    async with http2(arena.plain.target, tls=tls, source=source) as connection:
                        try:
                            await raw(connection)
                        finally:
                            closed = closes and await connection.until_closed(2.0)
                else:
                    connection = await Connection.open(arena.plain.target, tls=tls, source=source)
                    try:
                        await raw(connection)
                    finally:
                        await connection.drop()
        except (OSError, EOFError, ValueError, KeyError):
            closed = True  # it was refused, or answered with frames that make no sense to this client
        except TimeoutError:
            closed = False
        if closes and not closed:
            return "the connection stays open"
        return await healthy(arena)

    return Attack(name, run)


async def healthy(arena: Arena) -> str:
    """Return "" if a newcomer gets an answer about the server's health within 5 s."""
    try:
        async with asyncio.timeout(5.0), arena.plain.channel() as channel:
            await channel.unary_unary(CHECK)(b"")
    except Exception as error:  # whatever it is, a newcomer is kept out
        return f"afterwards health: {type(error).__name__} {getattr(error, 'details', lambda: '')()}"
    return ""


async def _sent(connection: Connection, raw: bytes) -> None:
    await connection.send(raw)
    for _ in range(5):
        await connection.read(0.1)


async def _flood(connection: Connection, first: bytes, again: bytes, most: int) -> None:
    async def read() -> None:
        while await connection.read(_SECONDS) is not None:
            pass

    reading = asyncio.create_task(read())
    try:
        await connection.send(first)
        for _ in range(most):
            await connection.send(again)
            if connection.closed:
                raise ConnectionResetError
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
