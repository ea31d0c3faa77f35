"""Writes lines to a stream from a thread of its own: nobody who logs waits for who reads."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TextIO, TypeVar

T = TypeVar("T")

MAX_WAITING = 10_000
"""Lines that wait for a slow reader."""
MAX_CHARACTERS = 16 << 20
"""And about how long they are together."""
_RESERVED = 0.1
"""Of that room, what only lines that matter may take."""
_WAIT_TIMEOUT = 2.0
"""Seconds `close` waits for what is still to be written."""
_RETRY = 0.2
_TOGETHER = 64
"""Lines of one write."""
_GATHER = 0.02
"""Seconds in which lines gather before they are written together. A thread that wakes for each line takes the interpreter from
the event loop at each: 0.6 ms of a call's time were that."""


class LogWriter(Generic[T]):
    """`put` neither blocks nor raises. Items become bytes in the thread, by `render`; those that find no room are counted.

    `idle` is asked for more lines about every `every` seconds, whether anything is written or not, and when it is closed.
    """

    def __init__(
        self,
        stream: TextIO,
        render: Callable[[T], bytes],
        *,
        idle: Callable[[], Sequence[T]] = list,
        every: float = 10.0,
        most: int = MAX_WAITING,
        max_characters: int = MAX_CHARACTERS,
    ) -> None:
        self._stream = stream
        self._render = render
        self._idle = idle
        self._every = every
        self._most = most
        self._max_characters = max_characters
        try:
            # By its descriptor: a thread stuck in a TextIO keeps its lock, which ends the interpreter with an abort.
            self._fd: int | None = stream.fileno()
        except (OSError, ValueError, AttributeError):
            self._fd = None
        self._waiting: deque[tuple[T, int]] = deque()
        self._characters = 0
        self._changed = threading.Condition()
        self._closed = False
        self._dropped = 0
        self._told = time.monotonic()
        # A daemon: a stream that nobody reads must not keep the process from leaving.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that were lost for want of room or of a stream, since the start."""
        return self._dropped

    @property
    def waiting(self) -> int:
        """Lines that are still to be written."""
        return len(self._waiting)

    def put(self, item: T, size: int, *, matters: bool = False) -> bool:
        """Whether there was room. `size` in characters, about; `matters`: it may take the room that is kept for such lines."""
        share = 1.0 if matters else 1.0 - _RESERVED
        with self._changed:
            full = len(self._waiting) >= self._most * share or self._characters + size > self._max_characters * share
            if full or self._closed:
                self._dropped += 1
                return False
            self._waiting.append((item, size))
            self._characters += size
            if len(self._waiting) == 1:  # it is awake, and gathers
                self._changed.notify()
        return True

    def close(self) -> None:
        """Writes what waits, for 2 seconds at most. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_WAIT_TIMEOUT)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed, self._every)
                self._changed.wait_for(lambda: self._closed, _GATHER if self._waiting else 0)
                taken = [item for item, _ in self._waiting]
                self._waiting.clear()
                self._characters = 0
                closed = self._closed
            self._write(taken)
            if closed or self._due():
                self._write(self._idle())
            if closed:
                return

    def _due(self) -> bool:
        """Under a flood there is no idle moment."""
        now = time.monotonic()
        if now - self._told < self._every:
            return False
        self._told = now
        return True

    def _write(self, items: Sequence[T]) -> None:
        """Some at a time: each write gives the interpreter away, and has to get it back."""
        for start in range(0, len(items), _TOGETHER):
            some = items[start : start + _TOGETHER]
            lines = [line for item in some if (line := self._rendered(item))]
            try:
                self._send(b"".join(lines))
            except Exception:  # the reader left, the disk is full: there is nowhere to tell it, but the count
                with self._changed:
                    self._dropped += len(lines)

    def _rendered(self, item: T) -> bytes:
        try:
            return self._render(item)
        except Exception:  # a bug of the renderer's costs one line
            with self._changed:
                self._dropped += 1
            return b""

    def _send(self, data: bytes) -> None:
        if self._fd is None:
            self._stream.write(data.decode("utf-8"))
            self._stream.flush()
            return
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # somebody made the pipe non-blocking
                threading.Event().wait(_RETRY)
