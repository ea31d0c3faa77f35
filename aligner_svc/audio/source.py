"""An upload as libav reads it, which notices when libav takes processor time and gets nowhere.

libav keeps tags in a list that it searches for each new one: 100,000 of them, one MB, take it 15 s. Opening a recording
takes 2 ms, whatever its length and format.
"""

from __future__ import annotations

import math
import time
from typing import Final, Protocol

from aligner_svc.audio.refused import UndecodableError

WAIT_TIMEOUT: Final = 0.3
"""Seconds of processor time between two signs of progress, while libav asks for more bytes."""


class Watch(Protocol):
    """Whoever ends a decode that takes its time over bytes that it has."""

    def progress(self) -> None:
        """It gets on, and will say so again soon."""

    def rest(self) -> None:
        """What was wanted of libav is done; what is left takes the time it takes."""


class Unwatched:
    """Nobody's watch."""

    def progress(self) -> None: ...

    def rest(self) -> None: ...


class AudioSource:
    """A file for libav over memory that is already here; `io.BytesIO` would copy all of it.

    It seems to end where libav asks for more after too long without progress; `check` tells that from its end.
    """

    def __init__(self, data: memoryview, watch: Watch) -> None:
        self._data = data
        self._at = 0
        self._watch = watch
        self._until = 0.0
        self._stalled = False
        self.progress()

    def progress(self) -> None:
        """There is something to show for the time that was taken: what comes next has PATIENCE of its own."""
        self._until = time.process_time() + WAIT_TIMEOUT
        self._watch.progress()

    def check(self) -> None:
        """Raises RefusedError(AUDIO_UNREADABLE) where it took too long."""
        if self._stalled:
            raise UndecodableError("AUDIO_UNREADABLE")

    def rest(self) -> None:
        """Everything that is wanted of it was read."""
        self._until = math.inf
        self._watch.rest()

    def read(self, size: int) -> bytes:
        # An exception from here is written to the standard error by PyAV, once for each read that libav tries again.
        self._stalled = self._stalled or time.process_time() > self._until
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
