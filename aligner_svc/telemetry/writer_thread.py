"""A bounded queue emptied by a thread of its own, for the log and the audit log: no caller waits for a disk or a reader."""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TextIO, TypeVar

T = TypeVar("T")


class WriterThread(Generic[T]):
    """`put` neither blocks nor raises; items that find no room are dropped and counted.

    `write` runs on the thread and must not raise. It gets up to `batch` items in order, and none when `every` seconds passed
    without one and once more at the end. With less than a batch waiting, the thread lets items gather for `gather` seconds.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[list[T]], None],
        *,
        batch: int,
        max_items: int,
        max_size: float = math.inf,
        reserved: float = 0.0,
        gather: float = 0.0,
        every: float | None = None,
    ) -> None:
        """`max_items`, `max_size`: what may wait; `reserved`: the share of both that only important items may use."""
        self._write = write
        self._batch = batch
        self._max_items = max_items
        self._max_size = max_size
        self._reserved = reserved
        self._gather = gather
        self._every = every
        self._waiting: deque[tuple[T, int]] = deque()
        self._size = 0
        self.refused = 0
        """Items for which there was no room, or that came after `close`; since the start."""
        self.lost = 0
        """Items that `write` could not write; it counts them here."""
        self.closing = False
        self._changed = threading.Condition()
        # A daemon: a stream without a reader must not keep the process from exiting.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return len(self._waiting)

    @property
    def dropped(self) -> int:
        """Items refused or lost."""
        return self.refused + self.lost

    def put(self, item: T, size: int = 0, *, important: bool = False) -> bool:
        """Queue the item, from any thread. Returns whether there was room."""
        share = 1.0 if important else 1.0 - self._reserved
        with self._changed:
            full = len(self._waiting) >= self._max_items * share or self._size + size > self._max_size * share
            if full or self.closing:
                self.refused += 1
                return False
            self._waiting.append((item, size))
            self._size += size
            if len(self._waiting) == 1:  # else the thread is awake already
                self._changed.notify()
        return True

    def close(self, timeout: float) -> bool:
        """Write what waits. Returns whether the thread ended within `timeout` seconds. Idempotent."""
        with self._changed:
            self.closing = True
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def clear(self) -> int:
        """For `write`: empty the queue. Returns how many items were in it."""
        with self._changed:
            count = len(self._waiting)
            self._waiting.clear()
            self._size = 0
        return count

    def pause(self, seconds: float) -> None:
        """For `write`: wait before another attempt, not longer than until `close` is called."""
        with self._changed:
            self._changed.wait_for(lambda: self.closing, seconds)

    def _run(self) -> None:
        more = True
        while more:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self.closing, self._every)
                if 0 < len(self._waiting) < self._batch:
                    self._changed.wait_for(lambda: self.closing, self._gather)
                taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._batch))]
                self._size -= sum(size for _, size in taken)
                more = bool(taken) or not self.closing
            self._write([item for item, _ in taken])


class OutputStream:
    """Writes through the file descriptor where there is one: a thread stuck in a TextIO holds its lock, which aborts the exit."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        try:
            self._fd: int | None = stream.fileno()
        except (OSError, ValueError, AttributeError):
            self._fd = None

    def write(self, data: bytes) -> int:
        """The number of bytes written, at least 1. Raises OSError, and ValueError for a closed stream."""
        if self._fd is not None:
            return os.write(self._fd, data)
        self._stream.write(data.decode("utf-8"))
        self._stream.flush()
        return len(data)
