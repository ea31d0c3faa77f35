"""How much of an engine's processes the recordings take that are spoken now: one too many is refused at its start.

What a speaker costs is known only once there are some words, and one that pauses costs nothing. So each stream counts with what
it took lately, and a new one with a guess. Of too many that begin in the same seconds all are let in: their words come late.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from aligner_svc.engines import refusals

_LATELY: Final = 30.0
"""Seconds after which what a stream took counts 1/e."""
_GUESS: Final = 0.04
"""Share of a process that a new stream counts with: continuous speech takes 0.05 to 0.1, with pauses 0.02."""
_MOST: Final = 0.8
"""Share of the processes that the streams may take together: the rest is for short recordings, and for speakers who speed up."""


class LiveStream:
    """One recording that is followed."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._share = _GUESS
        self._since = now()

    @property
    def share(self) -> float:
        """Of a process, lately."""
        return self._share * math.exp((self._since - self._now()) / _LATELY)

    def worked(self, seconds: float) -> None:
        """A process worked on it for so long."""
        self._share, self._since = self.share + seconds / _LATELY, self._now()


class LiveLoad:
    """Of all streams."""

    def __init__(self, processes: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most = processes * _MOST
        self._now = now
        self._streams: set[LiveStream] = set()

    @contextmanager
    def stream(self) -> Iterator[LiveStream]:
        """For as long as a recording is followed. Raises LimitExceededError."""
        if self._streams and sum(stream.share for stream in self._streams) + _GUESS > self._most:
            raise refusals.queue_full()
        stream = LiveStream(self._now)
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)
