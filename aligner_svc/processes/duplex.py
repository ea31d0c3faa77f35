"""Between a supervisor and its gateways: questions, answers and notices, a JSON array a line, over a socketpair.

[number, name, arguments]: a question, or with a number of null a notice. [number, null, answer] and [number, false, error].
Both ends are this program, run by one user, and callers' values are in strings only.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from interceptors.background import Tasks

log = logging.getLogger(__name__)

Handler: TypeAlias = Callable[..., Awaitable[Any]]

_TIMEOUT: Final = 1.0
"""Seconds for an answer. On a quiet machine it takes 0.2 ms."""


class NoAnswerError(Exception):
    """No answer: the other end is gone, too slow, or failed."""


class Duplex(asyncio.Protocol):
    """`open` on the event loop. `handlers`: coroutine functions by the name that the other end calls them by."""

    def __init__(self, handlers: dict[str, Handler]) -> None:
        self._handlers = handlers
        self._transport: asyncio.WriteTransport | None = None
        self._begun: list[bytes] = []
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._last = 0
        self._tasks = Tasks()
        self.closed = asyncio.Event()
        """Set when the other end is gone."""

    async def open(self, end: socket.socket) -> None:
        """Use this end of the pair."""
        end.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: self, sock=end)

    def close(self) -> None:
        """Idempotent."""
        if self._transport is not None:
            self._transport.close()

    async def ask(self, name: str, *arguments: object, seconds: float = _TIMEOUT) -> Any:
        """What the other end's handler returns. Raises NoAnswerError."""
        self._last += 1
        number, answer = self._last, asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self._send([number, name, arguments])
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            raise NoAnswerError(f"no answer within {seconds:g} s") from None
        finally:
            del self._asked[number]

    def tell(self, name: str, *arguments: object) -> None:
        """Run the other end's handler, without an answer. Does nothing if it is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_line([None, name, arguments]))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(NoAnswerError("it is gone"))

    def data_received(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._take(b"".join((*self._begun, line)))
            self._begun.clear()
        if rest:
            self._begun.append(rest)

    def _take(self, line: bytes) -> None:
        number, name, value = json.loads(line)
        if isinstance(name, str):
            self._tasks.start(self._run(number, name, value))
            return
        answer = self._asked.get(number)
        if answer is None or answer.done():
            return  # it came too late
        if name is None:
            answer.set_result(value)
        else:
            answer.set_exception(NoAnswerError(value))

    async def _run(self, number: int | None, name: str, arguments: list[Any]) -> None:
        try:
            answer = [number, None, await self._handlers[name](*arguments)]
        except Exception as error:
            log.exception("%s failed", name)
            answer = [number, False, type(error).__name__]
        if number is not None and self._transport is not None and not self._transport.is_closing():
            self._transport.write(_line(answer))

    def _send(self, message: list[Any]) -> None:
        if self._transport is None or self._transport.is_closing():
            raise NoAnswerError("it is gone")
        self._transport.write(_line(message))


def _line(message: list[Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"
