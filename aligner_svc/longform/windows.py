"""A long recording as a chain of short windows, each begun where the last one's words are sure.

The aligner is asked for a prefix: as many of the coming words as the window holds. What it
found, but for the unsure words at the window's end, is final; the next window begins
there. Memory and the cost a second of audio stay those of one window, whatever the length.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from aligner_svc.domain import SAMPLE_RATE, Clip, Token
from aligner_svc.engines.base import ProgressSink

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

WINDOW_SECONDS = 20.0
"""Audio of one window: long enough to hold several pauses, short enough for the aligners' cost to stay linear."""
_LAST_SECONDS = 25.0
"""What is left is taken whole if it is not longer than this: no stub of a window at the end."""
_WORDS_A_SECOND = 6.0
"""Spoken words offered for a second of audio; nobody reads faster for twenty seconds."""


class _Span(Protocol):
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...


S = TypeVar("S", bound=_Span)


@dataclass(frozen=True, slots=True)
class Prefix(Generic[S]):
    """Spans of the first tokens, final; the next window begins at `resume` (seconds in this one)."""

    spans: Sequence[S]
    resume: float


AlignWindow = Callable[["npt.NDArray[np.int16]", Sequence[Token], bool, bool], Awaitable[Prefix[S]]]
"""(int16 samples, coming tokens, whether the audio ends here, whether the tokens do) -> what was found."""
_LEAST_ADVANCE = 1.0
"""Seconds the next window begins later when no word was found: an aligner that hears nothing must not hold us."""


@dataclass(frozen=True, slots=True)
class Placed(Generic[S]):
    """A span of a window that begins at `offset` seconds of the clip."""

    offset: float
    span: S


async def align_in_windows(
    clip: Clip, tokens: Sequence[Token], align: AlignWindow[S], progress: ProgressSink | None = None
) -> list[Placed[S]]:
    """Spans of the leading tokens; tokens the audio ended before are missing at the end."""
    placed: list[Placed[S]] = []
    begin = 0
    samples = clip.samples
    while begin < len(samples) and len(placed) < len(tokens):
        left = (len(samples) - begin) / SAMPLE_RATE
        last = left <= _LAST_SECONDS
        seconds = left if last else WINDOW_SECONDS
        offered = _offer(tokens, len(placed), seconds)
        complete = len(placed) + len(offered) == len(tokens)
        window = samples[begin:] if last else samples[begin : begin + int(seconds * SAMPLE_RATE)]
        prefix = await align(window, offered, last, complete)
        placed += [Placed(begin / SAMPLE_RATE, span) for span in prefix.spans]
        advance = prefix.resume if prefix.spans else max(prefix.resume, _LEAST_ADVANCE)
        begin = len(samples) if last else begin + max(1, round(advance * SAMPLE_RATE))
        if progress is not None:
            progress(min(begin, len(samples)) / SAMPLE_RATE)
    return placed


def _offer(tokens: Sequence[Token], first: int, seconds: float) -> Sequence[Token]:
    """The coming tokens that could be said in `seconds`, at least one."""
    room = int(seconds * _WORDS_A_SECOND) + 4
    last = first
    while last < len(tokens) and room > 0:
        room -= len(tokens[last].spoken)
        last += 1
    return tokens[first:last]
