"""An upload as a file for libav, which notices when libav takes processor time without making progress.

libav keeps tags in a list that it searches for each new one: 100,000 of them, 1 MB, take it 15 s. Opening a recording
takes 2 ms, whatever its length and format.
"""

from __future__ import annotations

import math
import time
from typing import Final, Protocol

from aligner_svc.audio.undecodable import UndecodableError

STALL_TIMEOUT: Final = 0.3
"""Seconds of processor time between two signs of progress, while libav asks for more bytes."""


class Watch:
    """Is notified of a decode's progress, and may end one that makes none; this one does nothing."""

    def progress(self) -> None:
        """The decode made progress, and will report again soon."""

    def rest(self) -> None:
        """All that was wanted of libav was read: no progress will be reported any more."""


class Source(Protocol):
    """What libav reads from, and the sign that it may be at it for longer."""

    def read(self, size: int) -> bytes: ...

    def progress(self) -> None: ...

    def check(self) -> None: ...


class AudioSource:
    """A file over memory, without the copy that `io.BytesIO` would make.

    After STALL_TIMEOUT without progress it ends the file at libav's next read; `check` then raises.
    """

    def __init__(self, data: memoryview, watch: Watch) -> None:
        self._data = data
        self._at = 0
        self._watch = watch
        self._deadline = 0.0
        self._stalled = False
        self.progress()

    def progress(self) -> None:
        """Start the STALL_TIMEOUT again."""
        self._deadline = time.process_time() + STALL_TIMEOUT
        self._watch.progress()

    def check(self) -> None:
        """Raise UndecodableError (AUDIO_UNREADABLE) if the decode stalled."""
        if self._stalled:
            raise UndecodableError("AUDIO_UNREADABLE")

    def rest(self) -> None:
        """Stop measuring: all that was wanted was read."""
        self._deadline = math.inf
        self._watch.rest()

    def read(self, size: int) -> bytes:
        # Not an exception: PyAV would write it to stderr, once for each read that libav tries again.
        self._stalled = self._stalled or time.process_time() > self._deadline
        if self._stalled:
            return b""
        piece = bytes(self._data[self._at : self._at + size])
        self._at += len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        at = offset + (0, self._at, len(self._data))[whence]
        if at < 0:
            raise ValueError("before the start")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at
