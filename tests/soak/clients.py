"""What the clients of a soak do, one call after the other, and how each call may end."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import grpc

from tests.attack.arena import ALIGN, STREAM, Answer, align, answer, stream, unary, upload
from tests.hostile.corpus import CORPUS
from tests.kit.http2 import http2
from tests.kit.prod_process import ProdProcess
from tests.kit.recordings import SPEECH, TRANSCRIPT

CHUNK: Final = 16 * 1024
_LIVE_PAUSE: Final = 0.25
"""Seconds between two chunks of a live stream: twice as fast as it is spoken, or a soak would see few of them."""
_TIMEOUT: Final = 120.0
"""Seconds: 32 clients on two cores wait for each other."""
_SLOW_WINDOW: Final = {4: 10}
"""SETTINGS_INITIAL_WINDOW_SIZE: ten bytes of an answer at a time."""


@dataclass(frozen=True)
class Site:
    """Where clients call. `credential`: a good one of this role, as a header."""

    server: ProdProcess
    credential: Callable[[], tuple[str, str]]


@dataclass(frozen=True)
class Role:
    """`call` makes one call; `expected`: the reasons, or codes without one, with which it may end."""

    name: str
    clients: int
    call: Callable[[Site, grpc.aio.Channel, random.Random], Awaitable[Answer]]
    expected: frozenset[str]


async def _unary(site: Site, channel: grpc.aio.Channel, draw: random.Random) -> Answer:
    return await answer(lambda: channel.unary_unary(ALIGN)(align(), metadata=(site.credential(),), timeout=_TIMEOUT))


async def _live(site: Site, channel: grpc.aio.Channel, draw: random.Random) -> Answer:
    messages = upload([SPEECH[start : start + CHUNK] for start in range(0, len(SPEECH), CHUNK)])

    async def spoken() -> AsyncIterator[bytes]:
        for message in messages:
            yield message
            await asyncio.sleep(_LIVE_PAUSE)

    return await answer(lambda: channel.stream_stream(STREAM)(spoken(), metadata=(site.credential(),), timeout=_TIMEOUT))


async def _bad_token(site: Site, channel: grpc.aio.Channel, draw: random.Random) -> Answer:
    name, good = site.credential()
    at = draw.randrange(len("Bearer "), len(good) - 1)
    bad = good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 :]
    await asyncio.sleep(0.05)
    return await unary(channel, ALIGN, align(), (name, bad))


async def _bomb(site: Site, channel: grpc.aio.Channel, draw: random.Random) -> Answer:
    case = CORPUS[draw.choice(_BOMBS)]
    body = await asyncio.to_thread(case.make)
    chunks = [body[start : start + CHUNK] for start in range(0, len(body), CHUNK)]
    return await stream(channel, STREAM, upload(chunks), site.credential())


async def _slow_reader(site: Site, channel: grpc.aio.Channel, draw: random.Random) -> Answer:
    """Takes an answer a few bytes at a time, and leaves in the middle of it."""
    with contextlib.suppress(OSError):
        async with http2(site.server.target, _SLOW_WINDOW, tls=site.server.tls()) as client:
            request = client.request(1, ALIGN, site.credential())
            await client.send(request, client.data(1, client.message(align(SPEECH[:CHUNK], TRANSCRIPT))[:CHUNK]))
            for _ in range(20):
                await client.read(0.2)
    return Answer("LEFT")


async def _cancel(site: Site, channel: grpc.aio.Channel, draw: random.Random) -> Answer:
    parts: Sequence[bytes] = upload([SPEECH[start : start + CHUNK] for start in range(0, len(SPEECH), CHUNK)])
    call = channel.stream_stream(STREAM)(iter(parts), metadata=(site.credential(),), timeout=_TIMEOUT)
    await asyncio.sleep(draw.random() * 0.4)
    call.cancel()
    with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
        async for _ in call:
            pass
    return Answer("LEFT")


_BOMBS: Final = sorted(name for name in CORPUS if "bomb" in name or "hours" in name or "claim" in name)
_REFUSED_FILES: Final = frozenset(outcome for name in _BOMBS for outcome in CORPUS[name].outcomes)

ROLES: Final = (
    Role("unary", 12, _unary, frozenset({"OK"})),
    Role("live stream", 6, _live, frozenset({"OK"})),
    Role("bad token", 4, _bad_token, frozenset({"CREDENTIALS_INVALID"})),
    Role("bomb", 4, _bomb, _REFUSED_FILES | {"OK", "AUDIO_TOO_SHORT", "TRANSCRIPT_TOO_DENSE", "AUDIO_TOO_LARGE"}),
    Role("slow reader", 3, _slow_reader, frozenset({"LEFT"})),
    Role("cancel", 3, _cancel, frozenset({"LEFT"})),
)
