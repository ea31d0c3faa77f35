"""Recordings longer than the model takes, as a chain of windows (engines/windows.py).

The model gives every word that it is shown two times, and says of none that it is not in the audio. So a window is offered
fewer words than it should hold, the last of them are given back to the next window, and what it answered counts up to where its
times stop being in order. Where they are from the first word on, the place in the text was lost: the window is tried with words
from many places of the text, in one batch.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from statistics import median
from typing import Final

import numpy as np
import numpy.typing as npt

from aligner_svc.domain import SAMPLE_RATE, Clip, ProgressSink, Token, Warning, WordStatus
from aligner_svc.engines.base import EngineResult, OnSpans, Span
from aligner_svc.engines.live import LiveAudio, LiveText
from aligner_svc.engines.qwen.outcome import warnings
from aligner_svc.engines.qwen.prompt import TooManyRowsError
from aligner_svc.engines.windows import Cut, Placed, Prefix, Windows, align_in_windows

Samples = npt.NDArray[np.int16]
Ask = Callable[[Samples, Sequence[Token]], Awaitable[EngineResult]]
"""Have the model align one window. Raises TooManyRowsError for more words than it has positions for."""

CUT: Final = Cut(seconds=150.0, last_seconds=180.0, words_a_second=8.0, words_to_search=4000)
LIVE_CUT: Final = Cut(seconds=30.0, last_seconds=40.0, words_a_second=8.0, words_to_search=600)
_USUAL_RATE: Final = 2.5
"""Words a second, where it is not known how long the text will be."""
_FEW: Final = 3
"""Trusted words of a growing window, below which none is final."""
_LEAST: Final = 0.1
"""Confidence below which a word of a growing window is never good: nothing may have been heard to compare it with."""
_AT_ONCE: Final = 1000
"""Words handed out at a time of those that come after the end of the audio."""
_OFFERED: Final = 0.85
"""Share of the words expected in a window, by the speaking rate so far, that it is offered."""
_DENSE: Final = 2.0
"""Times as many words as expected, and more, are not all shown to the last window: some are not in it."""
_UNSURE, _SURE = 15, 3
"""Last good words that the next window gets again; where the text or the audio goes on with something else, early in a window."""
_REACH: Final = 30
"""Words before those among which the widest pause is looked for, where the next window begins."""
_PAUSE: Final = 0.5
"""Seconds from which a pause is as good as a longer one; the more confident words decide."""
_RUN: Final = 10
"""Words of which half have to be good for those before to be trusted; a window with fewer trusted words counts as not found."""
_WELL: Final = 0.7
"""Share of the offered words that are trusted, below which the window is asked again with these alone."""
_PLACES, _NEXT, _FINER = 24, 3, 16
"""Places in the text that a window is tried with where the place was lost, where it still is, and around the best of them."""
_PASSES, _TRIES = 4, 6
"""Passes of the model for a window of the recording, on average, and of those of a search. Then the rest is not looked at."""
_SKIPPED: Final = 0.8
"""Share of a window in which nothing was found, after which the next begins."""
_LOST: Final = 0.5
"""Share of a window's words that have to be good for it to be taken as a whole."""
_DOUBT: Final = 0.2
"""Share of the usual confidence below which a word does not count as good."""
_NOWHERE: Final = Span(0.0, 0.0, 0.0, WordStatus.NOT_FOUND)


@dataclass(slots=True)
class _Spent:
    queued: float = 0.0
    busy: float = 0.0

    def add(self, queued: float, busy: float) -> None:
        self.queued += queued
        self.busy += busy


class _Recording:
    """What is known of a recording on the way through its windows."""

    def __init__(self, ask: Ask, cut: Cut, rate: float, windows: int) -> None:
        """`rate`: words a second, on the whole. `windows`: how many there will be, about."""
        self._ask = ask
        self._cut = cut
        self._mean = self._rate = rate
        self._passes, self._tries = _PASSES * windows, _TRIES * windows
        self._lost = 0  # windows in a row in which nothing was found
        self._sure: float | None = None  # confidence of the words found last, their median
        self._spent = _Spent()

    def _result(self, spans: Sequence[Span], segment_ms: float) -> EngineResult:
        score = sum(span.status is WordStatus.ALIGNED for span in spans) / max(1, len(spans))
        said = warnings([span for span in spans if span.status is not WordStatus.NOT_FOUND], score, segment_ms)
        absent = sum(span.status is WordStatus.NOT_FOUND for span in spans)
        if absent:
            said.append(Warning("WORDS_NOT_FOUND", f"{absent} of {len(spans)} words were not found in the audio"))
        return EngineResult(spans, score, said, self._spent.queued, self._spent.busy)

    async def _window(self, samples: Samples, coming: Sequence[Token], last: bool, complete: bool) -> Prefix[Span]:
        """AlignWindow of align_in_windows."""
        seconds = len(samples) / SAMPLE_RATE
        if self._passes <= 0:
            return Prefix((), _SKIPPED * seconds, 0.0)
        searching = len(coming) > int(seconds * self._cut.words_a_second) + 4  # more than align_in_windows offers otherwise
        expected = self._rate * seconds
        everything = last and complete and not searching and len(coming) <= _DENSE * expected + _RUN
        spans = await self._place(samples, coming if everything else coming[: self._offered(seconds)])
        if everything and len(spans) == len(coming) and _share(self._good(spans)) >= _LOST:
            return Prefix(spans, seconds)
        trusted = _trusted(self._good(spans))
        skipped, unsure = 0, _UNSURE
        if trusted < min(_RUN, len(spans)) and (searching or complete):
            skipped, spans = await self._search(samples, coming)
            trusted = _trusted(self._good(spans))
        elif _RUN <= trusted < _WELL * len(spans):
            spans = await self._place(samples, coming[:trusted])
            trusted = _trusted(self._good(spans))
            unsure = _UNSURE if spans[trusted - 1].end > _SKIPPED * seconds else _SURE
        if trusted == 0 or trusted < min(_RUN, len(spans)):
            self._lost += searching or complete
            return Prefix((), _SKIPPED * seconds, 0.0)
        self._lost = 0
        self._sure = median(span.confidence for span in spans[:trusted])
        self._rate = max(self._mean, trusted / max(spans[trusted - 1].end, 1.0))
        count, resume = trusted, seconds
        if not last and skipped + trusted < len(coming):
            count, resume = _pause(spans, trusted, unsure)
        return Prefix([_NOWHERE] * skipped + list(spans[:count]), resume)

    def _offered(self, seconds: float) -> int:
        return max(_RUN, int(self._rate * seconds * _OFFERED))

    async def _search(self, samples: Samples, coming: Sequence[Token]) -> tuple[int, Sequence[Span]]:
        """Words to leave out, and spans of those that follow; no spans if the window has none of the words."""
        usual = self._offered(len(samples) / SAMPLE_RATE)
        step, shown = max(1, usual // 2), max(_RUN, usual // 4)  # from a place in the window's first half all shown are in it
        wide = self._lost & (self._lost - 1) == 0  # of many windows without any of the words the 1st, 2nd, 3rd, 5th, 9th...
        starts = range(0, len(coming) - shown // 2, step)[: _PLACES if wide else _NEXT]
        places = await self._tried(samples, coming, starts, shown)
        best = max(places, key=lambda place: places[place], default=0)
        if places.get(best, 0) < _WELL * min(shown, len(coming) - best):
            return 0, ()
        nearer = range(max(1, best - step), best, max(1, step // _FINER))
        places = {best: places[best]} | await self._tried(samples, coming, nearer, shown)
        enough = max(places.values()) * _WELL
        first = min(place for place, trusted in places.items() if trusted >= enough)
        return first, await self._place(samples, coming[first : first + usual])

    async def _tried(self, samples: Samples, coming: Sequence[Token], places: Sequence[int], shown: int) -> dict[int, int]:
        """For each place in the text the words from there on that are trusted; in one batch."""
        places = places[: self._tries]
        self._tries -= len(places)
        found = await asyncio.gather(*(self._pass(samples, coming[place : place + shown]) for place in places))
        self._spent.add(
            max((result.queued for result in found), default=0.0), max((result.busy for result in found), default=0.0)
        )
        return {place: _trusted(self._good(result.spans)) for place, result in zip(places, found, strict=True)}

    def _good(self, spans: Sequence[Span], least: float | None = None) -> list[bool]:
        """Which words have times of the model's own, of some confidence, after those of the word before.

        Words that are not in the audio share one time, are out of order, or the model is not sure of them. `least`: confidence
        from which it is; without it by the words found so far.
        """
        if least is None:
            least = _DOUBT * (self._sure or 0.0)
        starts = [-1.0, *(span.start for span in spans)]
        own = (span.status is WordStatus.ALIGNED and span.confidence >= least for span in spans)
        return [fits and after > before for fits, (before, after) in zip(own, pairwise(starts), strict=True)]

    async def _place(self, samples: Samples, words: Sequence[Token]) -> Sequence[Span]:
        """A span for each of the words, or of as many as the model has positions for."""
        self._passes -= 1
        result = await self._pass(samples, words)
        self._spent.add(result.queued, result.busy)
        return result.spans

    async def _pass(self, samples: Samples, words: Sequence[Token]) -> EngineResult:
        while True:
            try:
                return await self._ask(samples, words)
            except TooManyRowsError:
                if len(words) == 1:
                    raise
                words = words[: len(words) // 2]


class LongRecording(_Recording):
    """One recording and its words; `align` once."""

    def __init__(self, clip: Clip, tokens: Sequence[Token], ask: Ask, cut: Cut = CUT) -> None:
        super().__init__(ask, cut, len(tokens) / clip.seconds, 1 + math.ceil(clip.seconds / cut.seconds))
        self._clip = clip
        self._tokens = tokens

    async def align(self, progress: ProgressSink | None, segment_ms: float) -> EngineResult:
        """`segment_ms`: of a class of the model."""
        placed = await align_in_windows(self._clip, self._tokens, self._window, progress, self._cut)
        return self._result(in_order(placed, len(self._tokens), self._clip.seconds), segment_ms)


class LiveRecording(_Recording):
    """One recording that still arrives, with its text; `follow` once.

    How far the speaker has got is told by the words that the model keeps confident: it is shown more than can have been said, and
    those that were not share a time or are out of order.
    """

    def __init__(self, audio: LiveAudio, text: LiveText, ask: Ask, on_spans: OnSpans, cut: Cut = LIVE_CUT) -> None:
        super().__init__(ask, cut, _USUAL_RATE, 0)
        self._audio = audio
        self._text = text
        self._on_spans = on_spans
        self._spans: list[Span] = []

    async def follow(self, progress: ProgressSink | None, segment_ms: float) -> EngineResult:
        """As LongRecording.align; the spans were handed out before."""
        walk = Windows(self._audio, self._text, self._whole, self._add, progress=progress, cut=self._cut, settle=self._begun)
        await walk.run()
        while await self._text.reach(1):  # said after the end of the audio, if at all
            left, _ = self._text.offer(_AT_ONCE)
            self._text.take(len(left))
            self._add([Placed(0.0, None)] * len(left))
        return replace(self._result(self._spans, segment_ms), spans=())

    async def _whole(self, samples: Samples, coming: Sequence[Token], last: bool, complete: bool) -> Prefix[Span]:
        self._passes, self._tries = self._passes + _PASSES, self._tries + _TRIES
        return await self._window(samples, coming, last, complete)

    async def _begun(self, samples: Samples, coming: Sequence[Token], last: bool, complete: bool) -> Prefix[Span]:
        """What is final of a growing window."""
        self._passes += 1
        spans = await self._place(samples, coming[: self._offered(len(samples) / SAMPLE_RATE)])
        most = max((span.confidence for span in spans if span.status is WordStatus.ALIGNED), default=0.0)
        good = self._good(spans, max(_LEAST, _DOUBT * max(most, self._sure or 0.0)))
        trusted = _trusted(good)
        if trusted < _FEW:
            return Prefix((), 0.0, 0.0)
        self._sure = median(span.confidence for span, is_good in zip(spans[:trusted], good, strict=False) if is_good)
        count, resume = _pause(spans, trusted, _UNSURE)
        if spans[trusted - 1].end > 0:
            self._rate = max(self._mean, trusted / spans[trusted - 1].end)
        return Prefix(spans[:count], resume)

    def _add(self, placed: list[Placed[Span]]) -> None:
        at = self._spans[-1].end if self._spans else 0.0
        ready = in_order(placed, len(placed), self._audio.length / SAMPLE_RATE, at)
        self._spans += ready
        self._on_spans(ready)


def in_order(placed: Sequence[Placed[Span]], count: int, seconds: float, at: float = 0.0) -> list[Span]:
    """One span for every word, in order and inside the clip; where windows meet two estimates may cross.

    `at`: the end of the word before them.
    """
    spans: list[Span] = []
    for item in placed:
        if item.span is None or item.span.status is WordStatus.NOT_FOUND:
            spans.append(Span(at, at, 0.0, WordStatus.NOT_FOUND))
            continue
        start = min(max(round(item.offset + item.span.start, 3), at), seconds)
        at = min(max(round(item.offset + item.span.end, 3), start), seconds)
        spans.append(Span(start, at, item.span.confidence, item.span.status))
    return spans + [Span(at, at, 0.0, WordStatus.NOT_FOUND)] * (count - len(spans))


def _share(good: Sequence[bool]) -> float:
    return sum(good) / len(good)


def _trusted(good: Sequence[bool]) -> int:
    """Leading words of which no _RUN in a row are mostly not good; of fewer words all or none. The last of them is good."""
    if not good:
        return 0
    run = min(_RUN, len(good))
    sums = [0, *accumulate(good)]
    ends = (end for end in range(run, len(good) + 1) if 2 * (sums[end] - sums[end - run]) < run)
    count = next((end - run for end in ends), len(good))
    while count and not good[count - 1]:
        count -= 1
    return count


def _pause(spans: Sequence[Span], trusted: int, unsure: int) -> tuple[int, float]:
    """How many words are final, and the middle of the pause that follows them (s): the best among some before the last words."""
    last = max(1, trusted - min(unsure, trusted // 3))

    def worth(count: int) -> tuple[float, float, int]:
        before, after = spans[count - 1], spans[min(count, len(spans) - 1)]
        sure = min(before.confidence, after.confidence) if before.status is after.status is WordStatus.ALIGNED else -1.0
        return (min(after.start - before.end, _PAUSE) if sure >= 0 else -1.0), sure, count

    count = max(range(max(1, last - _REACH), last + 1), key=worth)
    before, after = spans[count - 1], spans[min(count, len(spans) - 1)]
    return count, before.end + max(0.0, after.start - before.end) / 2
