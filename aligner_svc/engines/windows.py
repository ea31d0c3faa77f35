"""Aligns a long recording in short windows, each beginning where the words of the one before are certain.

The aligner is asked for a prefix: as many of the coming words as the window holds. What it
found, but for the unsure words at the window's end, is final; the next window begins
there. Memory and the cost a second of audio stay those of one window, whatever the length.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from aligner_svc.domain import SAMPLE_RATE, Clip, ProgressSink, Token

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

WINDOW_SECONDS = 20.0
"""Audio of one window: long enough to hold several pauses, short enough for the aligners' cost to stay linear."""
_LAST_SECONDS = 25.0
"""The rest of the audio is one window if it is not longer than this, so that the last one is not a stub."""
_WORDS_A_SECOND = 6.0
"""Spoken words offered for a second of audio; no reader keeps up more for twenty seconds."""
_WORDS_TO_SEARCH = 600
"""Spoken words offered once the place in the text is lost: a passage was skipped, or other speech is heard."""
_LEAST_COHERENCE = 0.4
"""Correct windows have more than 0.9, in noise 0.8; words of another text match by chance with 0.1 to 0.2."""


class _Span(Protocol):
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...


S = TypeVar("S", bound=_Span)


@dataclass(frozen=True, slots=True)
class Prefix(Generic[S]):
    """Spans of the first tokens, final; the next window begins at `resume` (seconds in this one).

    `coherence`: share of those tokens that were heard, the longest omission aside. What fits by
    chance is scattered over the text; what was said is not.
    """

    spans: Sequence[S]
    resume: float
    coherence: float = 1.0


AlignWindow = Callable[["npt.NDArray[np.int16]", Sequence[Token], bool, bool], Awaitable[Prefix[S]]]
"""(int16 samples, coming tokens, whether the audio ends here, whether the tokens do) -> what was found."""
_LEAST_ADVANCE = 1.0
"""Seconds by which the next window begins later if no word was found, so that the search always advances."""


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
        coherent = prefix.coherence >= _LEAST_COHERENCE
        if not coherent and not lost and not complete:
            lost = True  # the same audio again, with more of the text
            continue
        lost = not coherent
        if coherent or last:
            placed += [Placed(begin / SAMPLE_RATE, span) for span in prefix.spans]
        advance = prefix.resume if prefix.spans else max(prefix.resume, _LEAST_ADVANCE)
        begin = len(samples) if last else begin + max(1, round(advance * SAMPLE_RATE))
        if progress is not None:
            progress(min(begin, len(samples)) / SAMPLE_RATE)
    return placed


def _offer(tokens: Sequence[Token], first: int, room: int) -> Sequence[Token]:
    """The coming tokens of `room` spoken words, at least one."""
    last = first
    while last < len(tokens) and room > 0:
        room -= len(tokens[last].spoken)
        last += 1
    return tokens[first:last]
