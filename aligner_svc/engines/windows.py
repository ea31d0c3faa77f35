"""Aligns a recording of any length, complete or still arriving, as a chain of short windows.

The aligner gets one window and the coming words, and returns as many as the window contains. All but the uncertain words at the
window's end are final; the next window begins after them. Memory, and cost a second of audio, do not depend on the length.

Where the words found in a window explain little of its loud audio, the place in the text was lost, or the recording has something
else there. What was found is then kept aside, and the next windows search the same words, until one of them is explained: of what
was kept, those words are final that come before it in the text and in the recording. So a sentence that recurs does not carry the
place in the text along.

Of audio that arrives as it is spoken, words are final sooner (`settle`): whenever the speaker pauses, the audio since the last
final word is aligned as a window that may grow; what is well explained by then is final. What is not waits for the whole window,
so that all that is said above holds for it. docs/streaming.md has the rules and the measurements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from aligner_svc.domain import SAMPLE_RATE, Clip, ProgressSink, Token, WordStatus
from aligner_svc.engines.sources import ClipAudio, ClipText, WindowAudio, WindowText

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
_FOLLOWED = 4
"""Windows in a row in the text that carry the place in it along although none is explained; sentences that recur in an advert
make two or three."""
_CLEAR_COVERAGE, _CLEAR_ABSENT = 0.75, 0.17
"""For words to be final early: the share of a growing window's loud audio that is explained, and of words that may be missing."""
_TEXT_LAG = 60.0
"""Seconds of audio that are waited for while there is too little text for a window: people type behind the speaker."""
_CLICK = 0.3
"""Seconds of sound without a word that are left out with the pause after it: the end of the word before, a breath, a click."""
_STILL_OVERLAP = 1.0
"""Seconds at the end of a window without speech that the next one has again: a word may begin there."""
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
    await Windows(ClipAudio(clip), ClipText(tokens), align, placed.extend, progress=progress, cut=cut).run()
    return placed


class Windows(Generic[S]):
    """One walk through a recording and its text."""

    def __init__(
        self,
        audio: WindowAudio,
        text: WindowText,
        align: AlignWindow[S],
        on_final: Callable[[list[Placed[S]]], None],
        *,
        progress: ProgressSink | None = None,
        cut: Cut = _DEFAULT,
        settle: AlignWindow[S] | None = None,
    ) -> None:
        """`on_final` is called with the spans of the next tokens, once they cannot change any more.

        `settle`: aligns a window that ends in a pause of the speaker, and returns what is final of it; None: whole windows only.
        """
        self._audio = audio
        self._text = text
        self._align = align
        self._settle = settle
        self._on_final = on_final
        self._progress = progress
        self._cut = cut
        self._begin = 0
        self._kept: list[_Kept[S]] = []
        self._lost = False

    async def run(self) -> None:
        """Until the audio or the text ends."""
        at = 0
        while await self._text.reach(1) and (await self._settled() or await self._whole()):
            if self._begin == at:
                continue  # the same audio is aligned again, with more of the text
            at = self._begin
            self._audio.release(at)
            if self._progress is not None:
                self._progress(at / SAMPLE_RATE)
        self._finish(_final(self._kept, 0, ends=False))

    async def _settled(self) -> bool:
        """Whether some words are final before the window is whole, or it can begin later because nobody speaks."""
        if self._settle is None or self._lost or self._kept:
            return False
        if silence := await self._audio.silence(self._begin):
            self._begin += silence
            return True
        at = self._begin
        while (pause := await self._audio.pause(self._begin, at)) is not None:
            at = pause
            offered, complete = self._text.offer(self._room((at - self._begin) / SAMPLE_RATE))
            prefix = await self._settle(self._audio.cut(self._begin, at), offered, False, complete)
            if _is_clear(prefix):
                self._finish([Placed(self._begin / SAMPLE_RATE, span) for span in prefix.spans])
                self._begin += max(1, round(prefix.resume * SAMPLE_RATE))
                return True
            if prefix.coverage == 0 and (silence := await self._audio.silence(self._begin, _CLICK)):
                self._begin += silence
                return True
        return False

    async def _whole(self) -> bool:
        """Align the next window, as long as it can be; False if there is no audio left."""
        there = await self._audio.reach(self._begin + round(self._cut.last_seconds * SAMPLE_RATE) + 1)
        left = (there - self._begin) / SAMPLE_RATE
        if left <= 0:
            return False
        last = left <= self._cut.last_seconds
        seconds = left if last else self._cut.seconds
        end = there if last else self._begin + int(seconds * SAMPLE_RATE)
        heard = self._audio.heard(self._begin, end)
        if not heard:
            self._begin = end if last else end - round(_STILL_OVERLAP * SAMPLE_RATE)
            return True
        room = self._cut.words_to_search if self._lost else self._room(seconds)
        if self._settle is not None:
            await self._wait_for_text(room if self._lost else self._room(heard))
        offered, complete = self._text.offer(room)
        prefix = await self._align(self._audio.cut(self._begin, end), offered, last, complete)
        found = {index: span for index, span in enumerate(prefix.spans) if span.status is not WordStatus.NOT_FOUND}
        explained = prefix.coverage >= (_MIN_LEAP_COVERAGE if _leap(found, self._kept) > _LEAP else _MIN_COVERAGE)
        ran_out = last and not complete and len(prefix.spans) == len(offered)  # the words end, and the audio may go on
        if not self._lost and (ran_out or not explained):
            self._lost = True
            if not complete:
                return True  # align the same audio again with more of the text
        if found:
            self._kept.append(_Kept(self._begin / SAMPLE_RATE, found))
        if (explained and found) or last or _followed(self._kept, self._cut.words_to_search // 2):
            self._finish(_final(self._kept, len(prefix.spans) if explained else 0, ends=explained and bool(found)))
            self._kept, self._lost = [], not explained
        advance = prefix.resume if prefix.spans else max(prefix.resume, _MIN_ADVANCE)
        self._begin = there if last else min(there, self._begin + max(1, round(advance * SAMPLE_RATE)))
        return True

    async def _wait_for_text(self, room: int) -> None:
        """Text that is typed while it is spoken lags: a window waits for it, until so much more audio has come."""
        text = asyncio.ensure_future(self._text.reach(room))
        audio = asyncio.ensure_future(self._audio.reach(self._begin + round(_TEXT_LAG * SAMPLE_RATE)))
        try:
            await asyncio.wait((text, audio), return_when=asyncio.FIRST_COMPLETED)
        finally:
            text.cancel()
            audio.cancel()

    def _room(self, seconds: float) -> int:
        """Spoken words to offer for a window."""
        return int(seconds * self._cut.words_a_second) + 4

    def _finish(self, placed: list[Placed[S]]) -> None:
        if placed:
            self._text.take(len(placed))
            self._on_final(placed)


def _is_clear(prefix: Prefix[S]) -> bool:
    """Whether words may be final before their window is whole: they explain what is heard, and next to none is missing."""
    absent = sum(span.status is WordStatus.NOT_FOUND for span in prefix.spans)
    return bool(prefix.spans) and prefix.coverage >= _CLEAR_COVERAGE and absent <= _CLEAR_ABSENT * len(prefix.spans)


def _leap(found: Iterable[int], kept: Sequence[_Kept[S]]) -> int:
    """The most words left out between two of those `found`, or before the first."""
    first = min(found, default=0)
    before = max((window.last for window in kept if window.last < first), default=-1)
    return max((after - word for word, after in pairwise([before, *found])), default=0)


def _followed(kept: Sequence[_Kept[S]], words: int) -> bool:
    """Whether windows that were not explained lead so many words on, one after another in the text: noise, and not chance."""
    if not kept or kept[-1].last <= words:
        return False
    lengths: list[int] = []
    for index, window in enumerate(kept):
        lengths.append(1 + max((lengths[other] for other in range(index) if kept[other].last < window.first), default=0))
    return lengths[-1] >= _FOLLOWED


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
