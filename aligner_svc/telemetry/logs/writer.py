"""Renders log lines and writes them to a stream, on a thread of its own."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO, TypeVar

from aligner_svc.telemetry.writer_thread import OutputStream, WriterThread

T = TypeVar("T")

MAX_LINES = 10_000
"""Lines that wait for a slow reader."""
MAX_CHARACTERS = 16 << 20
"""Their approximate total length."""
_RESERVED = 0.1
"""The share of both that is kept for important lines."""
_RETRY = 0.2
_BATCH = 64
"""Lines in one write: each write releases the interpreter lock and has to get it back."""
_GATHER = 0.02
"""Seconds in which lines gather before they are written together. A thread that wakes for each line takes the interpreter from
the event loop each time: 0.6 ms of a call's time were that."""


class LogWriter(WriterThread[T]):
    """`render` turns items into bytes on the thread.

    `idle` is asked for more lines about every `every` seconds, whether anything is written or not, and on `close`.
    """

    def __init__(
        self,
        stream: TextIO,
        render: Callable[[T], bytes],
        *,
        idle: Callable[[], Sequence[T]] = list,
        every: float = 10.0,
        max_characters: int = MAX_CHARACTERS,
    ) -> None:
        self._out = OutputStream(stream)
        self._render = render
        self._idle = idle
        self._asked = time.monotonic()
        self._ask_every = every
        room = {"max_items": MAX_LINES, "max_size": max_characters}
        super().__init__("log", self._write_lines, **room, reserved=_RESERVED, batch=_BATCH, gather=_GATHER, every=every)

    def _write_lines(self, items: Sequence[T]) -> None:
        self._send(items)
        if not items or time.monotonic() - self._asked >= self._ask_every:  # under a flood there is no idle moment
            self._asked = time.monotonic()
            self._send(self._idle())

    def _send(self, items: Sequence[T]) -> None:
        lines = [line for item in items if (line := self._rendered(item))]
        try:
            for data in _pieces(lines):
                while data:
                    try:
                        data = data[self._out.write(data) :]  # noqa: PLW2901
                    except BlockingIOError:  # something made the pipe non-blocking
                        time.sleep(_RETRY)
        except Exception:  # the reader is gone or the disk is full: the counter is the only place to report it
            self.lost += len(lines)

    def _rendered(self, item: T) -> bytes:
        try:
            return self._render(item)
        except Exception:  # a bug of the renderer costs one line
            self.lost += 1
            return b""


def _pieces(lines: Sequence[bytes]) -> Iterator[bytes]:
    """Whole lines, as many together as a pipe takes in one piece: lines of several processes would be torn otherwise."""
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) > select.PIPE_BUF:
            yield piece
            piece = b""
        piece += line
    yield piece
