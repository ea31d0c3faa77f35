"""Aligns a long recording as a chain of short windows.

The aligner gets one window and the coming words, and returns as many as the window contains. All but the uncertain words at the
window's end are final; the next window begins after them. Memory, and cost a second of audio, do not depend on the length.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from aligner_svc.domain import SAMPLE_RATE, Clip, ProgressSink, Token

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

WINDOW_SECONDS = 20.0
"""Audio of one window: long enough for several pauses, short enough for the aligner's cost to stay linear."""
_LAST_SECONDS = 25.0  # the last window may have up to this much audio, so that no very short one is left at the end
_WORDS_A_SECOND = 6.0  # spoken words offered for a second of audio; more are not read in twenty seconds
_WORDS_TO_SEARCH = 600
"""Spoken words offered where the place in the text was lost: a passage was left out, or the audio has something else."""
_MIN_COHERENCE = 0.4  # right windows have more than 0.9, in noise 0.8; words of another text fit by chance with 0.1 to 0.2
_MIN_ADVANCE = 1.0  # seconds from a window without a word to the next one, so that an aligner that finds nothing still ends


S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Prefix(Generic[S]):
    """Final spans of the first tokens; the next window begins at `resume` (seconds in this one).

    `coherence`: share of those tokens that were found, the longest omission not counted. Words that fit by chance are scattered
    over the text; words that were said are not.
    """

    spans: Sequence[S]
    resume: float
    coherence: float = 1.0


AlignWindow = Callable[["npt.NDArray[np.int16]", Sequence[Token], bool, bool], Awaitable[Prefix[S]]]
"""(int16 samples, coming tokens, last: the audio ends here, complete: the tokens end here) -> what was found."""


@dataclass(frozen=True, slots=True)
class Placed(Generic[S]):
    """A span of a window that begins at `offset` seconds of the clip."""

    offset: float
    span: S


async def align_in_windows(
    clip: Clip, tokens: Sequence[Token], align: AlignWindow[S], progress: ProgressSink | None = None
) -> list[Placed[S]]:
    """Spans of the leading tokens; those after the end of the audio are missing."""
    placed: list[Placed[S]] = []
    begin = 0
    lost = False
    samples = clip.samples
    while begin < len(samples) and len(placed) < len(tokens):
        left = (len(samples) - begin) / SAMPLE_RATE
        last = left <= _LAST_SECONDS
        seconds = left if last else WINDOW_SECONDS
        offered = _offer(tokens, len(placed), _WORDS_TO_SEARCH if lost else int(seconds * _WORDS_A_SECOND) + 4)
        complete = len(placed) + len(offered) == len(tokens)
        window = samples[begin:] if last else samples[begin : begin + int(seconds * SAMPLE_RATE)]
        prefix = await align(window, offered, last, complete)
        coherent = prefix.coherence >= _MIN_COHERENCE
        if not coherent and not lost and not complete:
            lost = True  # align the same audio again with more of the text
            continue
        lost = not coherent
        if coherent or last:
            placed += [Placed(begin / SAMPLE_RATE, span) for span in prefix.spans]
        advance = prefix.resume if prefix.spans else max(prefix.resume, _MIN_ADVANCE)
        begin = len(samples) if last else begin + max(1, round(advance * SAMPLE_RATE))
        if progress is not None:
            progress(min(begin, len(samples)) / SAMPLE_RATE)
    return placed


def _offer(tokens: Sequence[Token], first: int, room: int) -> Sequence[Token]:
    """The coming tokens until they have `room` spoken words or more; at least one token."""
    last = first
    while last < len(tokens) and room > 0:
        room -= len(tokens[last].spoken)
        last += 1
    return tokens[first:last]
