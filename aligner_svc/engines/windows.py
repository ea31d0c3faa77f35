"""Aligns a long recording as a chain of short windows.

The aligner gets one window and the coming words, and returns as many as the window contains. All but the uncertain words at the
window's end are final; the next window begins after them. Memory, and cost a second of audio, do not depend on the length.

Where the words found in a window explain little of its loud audio, the place in the text was lost, or the recording has something
else there. What was found is then kept aside, and the next windows search the same words, until one of them is explained: of what
was kept, those words are final that come before it in the text and in the recording. So a sentence that recurs does not carry the
place in the text along.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from aligner_svc.domain import SAMPLE_RATE, Clip, ProgressSink, Token, WordStatus

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Cut:
    """How long the windows are, and how many words each is offered. The defaults suit an aligner that takes every word it can."""

    seconds: float = 20.0
    """Audio of one window: long enough for several pauses, short enough for the aligner's cost to stay linear."""
    last_seconds: float = 25.0
    """The last window may have up to this much audio, so that no very short one is left at the end."""
    words_a_second: float = 6.0
    """Spoken words offered for a second of audio; more are not read in twenty seconds."""
    words_to_search: int = 600
    """Spoken words offered where the place in the text was lost: a passage was left out, or the audio has something else."""


_MIN_COVERAGE = 0.4  # right windows have more than 0.8, in noise 0.6; words of another text, found by chance, have less than 0.1
_LEAP, _MIN_LEAP_COVERAGE = 60, 0.7
"""Words between two that were found, or before the first, and the share that the words of such a window have to explain: two
sentences that recur may explain 0.4 of a window, and would carry the place in the text along."""
_MIN_ADVANCE = 1.0  # seconds from a window without a word to the next one, so that an aligner that finds nothing still ends
_DEFAULT = Cut()


class WindowSpan(Protocol):
    """What a window has of a token."""

    @property
    def status(self) -> WordStatus:
        """NOT_FOUND: the times mean nothing."""


S = TypeVar("S", bound=WindowSpan)


@dataclass(frozen=True, slots=True)
class Prefix(Generic[S]):
    """Final spans of the first tokens; the next window begins at `resume` (seconds in this one).

    `coverage`: share of the window's loud audio that the words found in it explain, those that are not final included.
    """

    spans: Sequence[S]
    resume: float
    coverage: float = 1.0


AlignWindow = Callable[["npt.NDArray[np.int16]", Sequence[Token], bool, bool], Awaitable[Prefix[S]]]
"""(int16 samples, coming tokens, last: the audio ends here, complete: the tokens end here) -> what was found."""


@dataclass(frozen=True, slots=True)
class Placed(Generic[S]):
    """A token's span in a window that begins at `offset` seconds of the clip; None: it was not found."""

    offset: float
    span: S | None


@dataclass(frozen=True, slots=True)
class _Kept(Generic[S]):
    """What a window found: spans by the index of the token, counted from the first that is not final."""

    offset: float
    spans: dict[int, S]

    @property
    def first(self) -> int:
        return min(self.spans)

    @property
    def last(self) -> int:
        return max(self.spans)


async def align_in_windows(
    clip: Clip, tokens: Sequence[Token], align: AlignWindow[S], progress: ProgressSink | None = None, cut: Cut = _DEFAULT
) -> list[Placed[S]]:
    """Spans of the leading tokens; those after the end of the audio are missing."""
    placed: list[Placed[S]] = []
    kept: list[_Kept[S]] = []
    begin = 0
    lost = False
    samples = clip.samples
    while begin < len(samples) and len(placed) < len(tokens):
        left = (len(samples) - begin) / SAMPLE_RATE
        last = left <= cut.last_seconds
        seconds = left if last else cut.seconds
        offered = _offer(tokens, len(placed), cut.words_to_search if lost else int(seconds * cut.words_a_second) + 4)
        complete = len(placed) + len(offered) == len(tokens)
        window = samples[begin:] if last else samples[begin : begin + int(seconds * SAMPLE_RATE)]
        prefix = await align(window, offered, last, complete)
        found = {index: span for index, span in enumerate(prefix.spans) if span.status is not WordStatus.NOT_FOUND}
        explained = prefix.coverage >= (_MIN_LEAP_COVERAGE if _leap(found, kept) > _LEAP else _MIN_COVERAGE)
        ran_out = last and not complete and len(prefix.spans) == len(offered)  # the words end, and the audio may go on
        if not lost and (ran_out or not explained):
            lost = True
            if not complete:
                continue  # align the same audio again with more of the text
        if found:
            kept.append(_Kept(begin / SAMPLE_RATE, found))
        if (explained and found) or last or (kept and kept[-1].last > cut.words_to_search // 2):
            placed += _final(kept, len(prefix.spans) if explained else 0, ends=explained and bool(found))
            kept, lost = [], not explained
        advance = prefix.resume if prefix.spans else max(prefix.resume, _MIN_ADVANCE)
        begin = len(samples) if last else begin + max(1, round(advance * SAMPLE_RATE))
        if progress is not None:
            progress(min(begin, len(samples)) / SAMPLE_RATE)
    return placed + _final(kept, 0, ends=False)


def _leap(found: Iterable[int], kept: Sequence[_Kept[S]]) -> int:
    """The most words left out between two of those `found`, or before the first."""
    first = min(found, default=0)
    before = max((window.last for window in kept if window.last < first), default=-1)
    return max((after - word for word, after in pairwise([before, *found])), default=0)


def _final(kept: Sequence[_Kept[S]], count: int, *, ends: bool) -> list[Placed[S]]:
    """The first `count` tokens, or as many as were found: those of the windows that together have most words in order.

    `ends`: the last window is one of them.
    """
    best: list[tuple[int, int | None]] = []  # words found up to each window, and the window before it
    for index, window in enumerate(kept):
        before = [(best[other][0], other) for other in range(index) if kept[other].last < window.first]
        words, link = max(before, default=(0, None))
        best.append((words + len(window.spans), link))
    chosen: dict[int, Placed[S]] = {}
    at: int | None = None
    if kept:
        at = len(kept) - 1 if ends else max(range(len(kept)), key=lambda index: best[index][0])
    while at is not None:
        chosen |= {index: Placed(kept[at].offset, span) for index, span in kept[at].spans.items()}
        at = best[at][1]
    absent: Placed[S] = Placed(0.0, None)
    return [chosen.get(index, absent) for index in range(max(count, max(chosen, default=-1) + 1))]


def _offer(tokens: Sequence[Token], first: int, room: int) -> Sequence[Token]:
    """The coming tokens until they have `room` spoken words or more; at least one token."""
    last = first
    while last < len(tokens) and room > 0:
        room -= len(tokens[last].spoken)
        last += 1
    return tokens[first:last]
