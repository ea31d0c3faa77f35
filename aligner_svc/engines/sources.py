"""What windows are cut from: audio and text that may still arrive, and those of a complete recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from aligner_svc.domain import SAMPLE_RATE, Clip, Token
from aligner_svc.engines.loudness import LEAST_LEVEL_DB, levels, limits

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class WindowAudio(Protocol):
    """Audio that may still arrive; samples are counted from its first."""

    async def reach(self, count: int) -> int:
        """How many samples there are, once there are `count` or the audio has ended."""

    async def pause(self, begin: int, after: int) -> int | None:
        """A sample past `after` at which the audio from `begin` on is worth aligning before its window is whole; waits for it.

        None: there will be none in this window; the audio is not arriving as it is spoken.
        """

    async def silence(self, begin: int, click: float = 0.0) -> int:
        """How many samples from `begin` on need not be aligned, as the speaker pauses; waits for the next second or two.

        `click`: seconds of sound that may be there nevertheless. 0: somebody speaks, or the audio does not come as it is spoken.
        """

    def heard(self, begin: int, end: int) -> float:
        """Seconds in which somebody may speak; 0: there is silence, or steady noise. Of a complete recording all but silence."""

    def cut(self, begin: int, end: int) -> npt.NDArray[np.int16]:
        """The samples from `begin` to `end`."""

    def release(self, before: int) -> None:
        """What comes before this sample is not asked for any more."""


class WindowText(Protocol):
    """Tokens that may still arrive; those that are final are taken from the front."""

    async def reach(self, room: int) -> bool:
        """Whether there is any token, once there are `room` spoken words or the text has ended."""

    def offer(self, room: int) -> tuple[Sequence[Token], bool]:
        """The coming tokens until they have `room` spoken words, one at least; and whether they are all there are so far."""

    def take(self, count: int) -> None:
        """The first `count` are final."""


class ClipAudio:
    """A complete recording as WindowAudio."""

    def __init__(self, clip: Clip) -> None:
        self._samples = clip.samples

    async def reach(self, count: int) -> int:
        return len(self._samples)

    async def pause(self, begin: int, after: int) -> int | None:
        return None

    async def silence(self, begin: int, click: float = 0.0) -> int:
        return 0

    def heard(self, begin: int, end: int) -> float:
        of_window = levels(self._samples[begin:end])
        silent = len(of_window) and limits(of_window)[1] < LEAST_LEVEL_DB
        return 0.0 if silent else (end - begin) / SAMPLE_RATE

    def cut(self, begin: int, end: int) -> npt.NDArray[np.int16]:
        return self._samples[begin:end]

    def release(self, before: int) -> None: ...


class ClipText:
    """A complete text as WindowText."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._taken = 0

    async def reach(self, room: int) -> bool:
        return self._taken < len(self._tokens)

    def offer(self, room: int) -> tuple[Sequence[Token], bool]:
        offered = first_of(self._tokens, self._taken, room)
        return offered, self._taken + len(offered) == len(self._tokens)

    def take(self, count: int) -> None:
        self._taken += count


def first_of(tokens: Sequence[Token], first: int, room: int) -> Sequence[Token]:
    """The tokens from `first` on until they have `room` spoken words or more; at least one token."""
    last = first
    while last < len(tokens) and room > 0:
        room -= len(tokens[last].spoken)
        last += 1
    return tokens[first:last]
