"""What only HTTP/1.1 has: requests with two ends, heads and bodies without one, forms and JSON made to be misread."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress

from tests.aligner_svc.http.test_alignments import MALFORMED
from tests.aligner_svc.http.test_connection import FORMS, FRAMING, GOOD, INFO, KIND, PATH
from tests.attack.arena import TIMEOUT, Arena, Attack
from tests.attack.frames import healthy
from tests.kit.http1 import Reply, http1, request
from tests.kit.prod_process import ProdProcess

_ADDRESSES = itertools.cycle(f"127.6.{n // 250}.{n % 250 + 1}" for n in range(2500))
_JSON = ("content-type", "application/json")
_HOLD = 1.5


async def _replies(server: ProdProcess, raw: bytes, count: int = 1) -> list[Reply]:
    context = server.over_http().channel().tls
    async with asyncio.timeout(TIMEOUT), http1(server.http, tls=context, source=next(_ADDRESSES)) as client:
        with suppress(OSError):
            await client.send(raw)
        return [await client.reply() for _ in range(count)]


def _refused(reply: Reply, *allowed: int) -> str:
    return "" if reply.status in allowed else f"{reply.status} {reply.body[:100]!r}"


def framing() -> Iterator[Attack]:
    """Not HTTP, or with two meanings. The good request behind it must never be answered: it would be another client's."""

    async def smuggled(arena: Arena, raw: bytes) -> str:
        known = request("GET", "/v1/info", arena.token)
        first, second = await _replies(arena.plain, raw + known, 2)
        if second.status == 200:
            return "the request behind it was served"
        return _refused(first, 0, 400, 401, 404, 431, 501, 505)

    async def odd(arena: Arena, raw: bytes) -> str:
        """Valid HTTP, whose next request is one of its own."""
        [reply] = await _replies(arena.plain, raw)
        return _refused(reply, 0, 400, 401, 404)

    headers = {
        "a token in chunks": request("POST", PATH, ("transfer-encoding", "chunked")) + b"5\r\n",
        "a CR alone": b"GET /v1/info HTTP/1.1\r\nhost: a\rx-api-key: b\r\n\r\n",
        "a line folded": b"GET /v1/info HTTP/1.1\r\nhost: a\r\nx-api-key:\r\n b\r\n\r\n",
        "absolute": b"GET http://localhost/v1/info HTTP/1.1\r\nhost: a\r\n\r\n",
        "a method of NULs": b"\0\0\0 /v1/info HTTP/1.1\r\nhost: a\r\n\r\n", "TRACE": request("TRACE", "/v1/info"),
        "CONNECT": request("CONNECT", "localhost:443"),
        "upgrade": request("GET", "/v1/info", ("upgrade", "h2c"), ("connection", "upgrade")),
    }  # fmt: skip
    for name, raw in FRAMING.items():
        if name not in {"no HTTP", "a huge header", "many headers", "a long path"}:
            yield Attack(name, lambda arena, raw=raw: smuggled(arena, raw))
    for name, raw in headers.items():
        yield Attack(name, lambda arena, raw=raw: odd(arena, raw))


def bodies() -> Iterator[Attack]:
    """With a good credential: forms and JSON that are not what they say, and bodies that never end."""

    async def sent(arena: Arena, *headers: tuple[str, str], body: bytes, path: str = PATH) -> str:
        [reply] = await _replies(arena.plain, request("POST", path, arena.token, *headers, body=body))
        return _refused(reply, 400, 413, 415)

    async def endless(arena: Arena, *, known: bool) -> str:
        context = arena.plain.over_http().channel().tls
        headers = [arena.token] if known else []
        async with asyncio.timeout(TIMEOUT), http1(arena.plain.http, tls=context, source=next(_ADDRESSES)) as client:
            await client.send(request("POST", PATH, *headers, _JSON, ("transfer-encoding", "chunked")))
            with suppress(OSError):
                for _ in range(2000):
                    await client.send(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
            return _refused(await client.reply(), 0, 401, 413)

    for name, (header, body) in FORMS.items():
        yield Attack(f"form: {name}", lambda arena, h=header, b=body: sent(arena, h, body=b))
    for name, text in MALFORMED.items():
        body = text if isinstance(text, bytes) else text.encode()
        yield Attack(f"JSON: {name}", lambda arena, b=body: sent(arena, _JSON, body=b))
    large = {
        "12 MB of lists": b"[" + b"[]," * (4 << 20) + b"[]]",
        "12 MB of names": b"{" + b",".join(b'"%d":0' % n for n in range(1 << 20)) + b"}",
        "12 MB of digits": b'{"config":{"channels":' + b"9" * (12 << 20) + b"}}",
        "40 MB": b'{"audio":"' + b"A" * (40 << 20) + b'"}',
        "a form of near boundaries": b"\r\n--limi" * (1 << 20),
    }  # fmt: skip
    for name, body in large.items():
        header = KIND if name.startswith("a form") else _JSON
        yield Attack(name, lambda arena, h=header, b=body: sent(arena, h, body=b))
    for kind in ("text/html", "application/grpc", "application/connect+proto", "application/x-protobuf", ""):
        yield Attack(f"as {kind}", lambda arena, k=kind: sent(arena, ("content-type", k), body=GOOD))
    for coding in ("gzip", "deflate", "br", "zstd"):
        yield Attack(f"in {coding}", lambda arena, c=coding: sent(arena, KIND, ("content-encoding", c), body=GOOD))
    yield Attack("chunks without end", lambda arena: endless(arena, known=True))
    yield Attack("chunks without end, anonymous", lambda arena: endless(arena, known=False))


def connections() -> Iterator[Attack]:
    """Connections that are opened and not used, heads that drip, answers that are not taken. A newcomer has to be served."""

    def of(name: str, attack: Callable[[Arena, AsyncExitStack], Awaitable[None]]) -> Attack:
        async def run(arena: Arena) -> str:
            async with AsyncExitStack() as stack:
                await attack(arena, stack)
                await asyncio.sleep(_HOLD)
                [reply] = await _replies(arena.plain, request("GET", "/v1/info", arena.token))
                return _refused(reply, 200) or await healthy(arena)

        return Attack(name, run)

    async def silent(arena: Arena, stack: AsyncExitStack, count: int, hosts: int) -> None:
        for number in range(count):
            with suppress(OSError):
                await stack.enter_async_context(http1(arena.plain.http, source=f"127.5.0.{number % hosts + 1}"))

    async def begun(arena: Arena, stack: AsyncExitStack, count: int, raw: bytes) -> None:
        context = arena.plain.over_http().channel().tls

        async def one() -> None:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(20):
                    client = await stack.enter_async_context(http1(arena.plain.http, tls=context, source="127.5.1.1"))
                    await client.send(raw)

        for _ in range(0, count, 25):
            await asyncio.gather(*(one() for _ in range(25)))

    yield of("300 that say nothing after TLS", lambda arena, stack: begun(arena, stack, 300, b""))
    yield of("1,000 that say nothing", lambda arena, stack: silent(arena, stack, 1000, 1))
    yield of("1,000 that say nothing, of 10 hosts", lambda arena, stack: silent(arena, stack, 1000, 10))
    yield of("300 with half a head", lambda arena, stack: begun(arena, stack, 300, INFO[:20]))
    half = request("POST", PATH, KIND, ("content-length", "1000"))
    yield of("300 with half a body, anonymous", lambda arena, stack: begun(arena, stack, 300, half))
    yield of("300 that read no answer", lambda arena, stack: begun(arena, stack, 300, INFO * 200))
