"""Clients that call one time after the other, and what became of every call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from tests.attack.arena import ALIGN, STREAM, Answer, align, once, upload
from tests.chaos.site import Site
from tests.kit.recordings import SPEECH
from tests.kit.waiting import eventually

_UNARY, _STREAMS = 1, 1
"""Clients of each credential. More would be too many for two workers on two cores, and so be refused."""
_CHUNK: Final = 16 * 1024
_TIMEOUT: Final = 60.0


@dataclass(frozen=True)
class Call:
    """Monotonic seconds, and how it ended."""

    began: float
    ended: float
    answer: Answer

    @property
    def fine(self) -> bool:
        return self.answer.code == "OK"

    @property
    def lost(self) -> bool:
        """Neither answered, nor refused with a time to come back after."""
        return not self.fine and self.answer.retry is None


@dataclass
class Load:
    """The calls that have ended, in that order."""

    calls: list[Call] = field(default_factory=list)

    def since(self, at: float) -> Sequence[Call]:
        """Those that ended after `at`."""
        return [call for call in self.calls if call.ended >= at]


@asynccontextmanager
async def load(site: Site, pause: float) -> AsyncIterator[Load]:
    """Yields once every client has been served. `pause`: seconds from an answer to the client's next call."""
    found = Load()
    served: set[int] = set()
    clients = [(kind, credential) for credential in site.credentials() for kind in ("unary",) * _UNARY + ("stream",) * _STREAMS]
    messages = upload([SPEECH[start : start + _CHUNK] for start in range(0, len(SPEECH), _CHUNK)])

    async def client(number: int) -> None:
        kind, credential = clients[number]
        while True:
            # A connection of its own for every call: an open one would go on through much that a new one must get through.
            async with site.channel() as channel:
                began, metadata = time.monotonic(), (credential(),)
                if kind == "unary":
                    call = channel.unary_unary(ALIGN)(align(), metadata=metadata, timeout=_TIMEOUT)
                else:
                    call = channel.stream_stream(STREAM)(iter(messages), metadata=metadata, timeout=_TIMEOUT)
                answer = await once(call)
            found.calls.append(Call(began, time.monotonic(), answer))
            if answer.code == "OK":
                served.add(number)
            await asyncio.sleep(min(answer.retry or pause, 0.5))

    running = [asyncio.create_task(client(number)) for number in range(len(clients))]
    try:
        await eventually(lambda: len(served) == len(clients), "every client to be served")
        yield found
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        for task in running:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
