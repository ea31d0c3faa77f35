"""Aligns one window: the times of its tokens, how many of them are final, and where the next window begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from aligner_svc.domain import SAMPLE_RATE, WordStatus
from aligner_svc.engines.loudness import FRAME_RATE, levels, loud
from aligner_svc.engines.pocketsphinx import calibration
from aligner_svc.engines.pocketsphinx.boundaries import BoundaryRefiner, WordSpan
from aligner_svc.engines.pocketsphinx.ladder import FirstPass, Ladder, LadderWindow, Placement
from aligner_svc.engines.pocketsphinx.lexicon import Speller
from aligner_svc.engines.pocketsphinx.recogniser import Segment
from aligner_svc.engines.pocketsphinx.repair import Times, repair, without_short
from aligner_svc.engines.pocketsphinx.second_opinion import Samples
from aligner_svc.engines.pocketsphinx.wire import TokenSpan
from aligner_svc.engines.windows import Prefix

LoudFrames = npt.NDArray[np.bool_]
"""Which frames of a window are loud (loudness.py)."""

_UNSURE_SECONDS = 1.5  # at the end of an open window: the word that is cut off there spoils the times of the words before it
_PAUSE_SECONDS = 0.1  # a pause this long is a good place to cut, ...
_PAUSE_SEARCH_SECONDS = 4.0  # ... and worth aligning this much audio twice

_LIVE_PAUSE_SECONDS, _LIVE_TAIL_SECONDS = 0.2, 0.15
"""A pause of the speaker at the end of the audio so far, and how long before the end of that the last word has to end."""
_LIVE_SHORT_SECONDS = 0.25  # a shorter word before such a pause may have been squeezed in
_LIVE_UNSURE_SECONDS = 0.8  # as _UNSURE_SECONDS, in a growing window
_LIVE_FEW_WORDS, _LIVE_LAST_WORDS = 3, 4  # before that, for a cut without a pause, and those of which one is the last to be final

_LIVE_UNCLEAR_SECONDS = 5.0  # a growing window whose words do not fit is aligned the expensive way from this length on


class WindowAligner:
    """All models of one worker. Not thread-safe."""

    def __init__(self, ladder: Ladder, speller: Speller, refiner: BoundaryRefiner) -> None:
        self._ladder = ladder
        self._speller = speller
        self._refiner = refiner

    def align(
        self, samples: Samples, tokens: Sequence[Sequence[str]], last: bool, complete: bool, *, live: bool = False
    ) -> Prefix[TokenSpan]:
        """`tokens[i]` are the spoken words of token i.

        `last`: the audio ends with this window. `complete`: the transcript ends with these tokens. `live`: the window is as much
        of the audio as there is so far.
        """
        words = [word for token in tokens for word in token]
        ends = np.cumsum([len(token) for token in tokens]).tolist()
        exits = () if last and complete else (0, *ends)
        speech, seconds = loud(levels(samples)), len(samples) / SAMPLE_RATE
        first = None
        if live:
            first = self._ladder.first(samples, words, exits)
            if first.fits and first.segments is not None:
                rough = _folded([*map(_placement, first.segments), *[None] * (len(words) - len(first.segments))], {}, ends)
                count, resume = _cut_live(rough, seconds, _seconds_quiet(speech), fits=True)
                return self._final(samples, tokens[:count], resume, first.segments, _coverage(speech, rough))
            if seconds < _LIVE_UNCLEAR_SECONDS:
                return Prefix((), 0.0, 0.0)
        window = self._ladder.align(samples, words, exits, first)
        spans = self._token_spans(samples, words, ends, window, speech)
        count, resume = len(tokens), seconds
        if live:
            count, resume = _cut_live(spans, resume, _seconds_quiet(speech), fits=False)
        elif not last:
            count, resume = _cut(spans, resume)
        elif not complete:
            count = sum(end <= window.reached for end in ends)
        return Prefix(_place_absent(spans[:count]), resume, _coverage(speech, spans))

    def _final(
        self, samples: Samples, tokens: Sequence[Sequence[str]], resume: float, segments: Sequence[Segment], coverage: float
    ) -> Prefix[TokenSpan]:
        """The `tokens` that are final of a growing window, in which the first pass found `segments`, which fit.

        The second opinion and the correction of edges, half of the cost of a window, are for these alone.
        """
        if not tokens:
            return Prefix((), 0.0, coverage)
        words = [word for token in tokens for word in token]
        ends = np.cumsum([len(token) for token in tokens]).tolist()
        piece = samples[: round(resume * SAMPLE_RATE)]
        window = self._ladder.align(piece, words, (), FirstPass(segments[: len(words)], fits=True))
        spans = self._token_spans(samples, words, ends, window, loud(levels(samples)))
        return Prefix(_place_absent(spans), resume, coverage)

    def _token_spans(
        self, samples: Samples, words: Sequence[str], ends: Sequence[int], window: LadderWindow, speech: LoudFrames
    ) -> list[TokenSpan]:
        """`ends`: for each token the number of words up to its end."""
        placements, widened = without_short(self._refine(samples, words, window.placements))
        return _folded(
            placements, self._repair(words, placements[: window.reached], None if window.noisy else speech) | widened, ends
        )

    def _refine(self, samples: Samples, words: Sequence[str], placements: Sequence[Placement | None]) -> list[Placement | None]:
        """Correct the edges of all words that were placed, by either recogniser."""
        refined = list(placements)
        chosen = [(index, placement) for index, placement in enumerate(placements) if placement is not None]
        spans = [WordSpan(found.start, found.end, found.phones or self._speller.phones(words[index])) for index, found in chosen]
        for (index, placement), word in zip(chosen, self._refiner.refine(samples, spans), strict=True):
            refined[index] = replace(placement, start=word.start, end=word.end, spread=word.spread)
        return refined

    def _repair(
        self, words: Sequence[str], placements: Sequence[Placement | None], speech: LoudFrames | None
    ) -> dict[int, Times]:
        """`speech` None: noise, in which no part of a gap is told from another."""
        if None not in placements:
            return {}
        phones = [len(self._speller.phones(word)) for word in words[: len(placements)]]
        return repair(placements, phones, lambda start, end: (start, end) if speech is None else _loud_part(speech, start, end))


def _placement(segment: Segment) -> Placement:
    return Placement(segment.start, segment.end, segment.score, None, segment.phones)


def _folded(placements: Sequence[Placement | None], repaired: Mapping[int, Times], ends: Sequence[int]) -> list[TokenSpan]:
    """One span for each token; `ends` as in `_token_spans`."""
    return [
        _fold(placements[begin:end], [repaired[i] for i in range(begin, end) if i in repaired])
        for begin, end in zip([0, *ends], ends, strict=False)
    ]


def _fold(placements: Sequence[Placement | None], repaired: Sequence[Times]) -> TokenSpan:
    """Combine the spoken words of one token into one span."""
    found = [placement for placement in placements if placement is not None]
    evidence = float(np.mean([calibration.evidence(placement) for placement in placements]))
    if found:
        starts = [placement.start for placement in found] + [start for start, _ in repaired]
        ends = [placement.end for placement in found] + [end for _, end in repaired]
        confidence = float(np.mean([calibration.confidence(placement) for placement in found])) * len(found) / len(placements)
        return TokenSpan(min(starts), max(ends), confidence, evidence, WordStatus.ALIGNED)
    if len(repaired) == len(placements):
        return TokenSpan(repaired[0][0], repaired[-1][1], calibration.REPAIRED_CONFIDENCE, evidence, WordStatus.REPAIRED)
    return TokenSpan(0.0, 0.0, 0.0, 0.0, WordStatus.NOT_FOUND)


def _coverage(speech: LoudFrames, spans: Sequence[TokenSpan]) -> float:
    """See Prefix; 1 if nothing is loud."""
    covered = np.zeros(len(speech), dtype=bool)
    for span in spans:
        if span.status is not WordStatus.NOT_FOUND:
            covered[int(span.start * FRAME_RATE) : int(span.end * FRAME_RATE)] = True
    return float((speech & covered).sum() / speech.sum()) if speech.any() else 1.0


def _place_absent(spans: Sequence[TokenSpan]) -> list[TokenSpan]:
    """Put each word that was not found at the end of the last one found before it."""
    placed: list[TokenSpan] = []
    at = 0.0
    for span in spans:
        absent = span.status is WordStatus.NOT_FOUND
        placed.append(TokenSpan(at, at, 0.0, 0.0, WordStatus.NOT_FOUND) if absent else span)
        at = placed[-1].end
    return placed


def _cut(spans: Sequence[TokenSpan], seconds: float) -> tuple[int, float]:
    """How many tokens of an open window are final, and the second in it at which the next window begins."""
    found = [index for index, span in enumerate(spans) if span.status is not WordStatus.NOT_FOUND]
    sure = [index for index in found if spans[index].end <= seconds - _UNSURE_SECONDS]
    if not sure:
        begin = spans[found[0]].start - 0.2 if found else seconds - _UNSURE_SECONDS
        return 0, min(max(begin, 1.0), seconds)
    following = dict(pairwise(found))
    cut = sure[-1]
    for index in reversed(sure):
        if spans[index].end < seconds - _UNSURE_SECONDS - _PAUSE_SEARCH_SECONDS:
            break
        if index in following and spans[following[index]].start - spans[index].end >= _PAUSE_SECONDS:
            cut = index
            break
    end = spans[cut].end
    next_start = spans[following[cut]].start if cut in following else end
    return cut + 1, end + max(0.0, min(next_start - end, 0.6)) / 2


def _cut_live(spans: Sequence[TokenSpan], seconds: float, quiet: float, *, fits: bool) -> tuple[int, float]:
    """The same of a window that is as much as there is so far, the last `quiet` seconds of it a pause; (0, 0): nothing is final.

    A path must end after some word, and may squeeze a short one in before the pause that is only said after it: 2 of 695 words
    of joined sentences. So short words there wait for what follows. `fits`: the words are where they seem to be, so that no
    pause is needed: the words before the widest gap of the last few are final.
    """
    found = [index for index, span in enumerate(spans) if span.status is not WordStatus.NOT_FOUND]
    following = dict(pairwise(found))

    def gap(index: int) -> float:
        return min(spans[following[index]].start - spans[index].end, _PAUSE_SECONDS)

    ends_in_pause = bool(found) and quiet >= _LIVE_PAUSE_SECONDS and spans[found[-1]].end <= seconds - _LIVE_TAIL_SECONDS
    if ends_in_pause:
        sure = [index for index in found if spans[index].end - spans[index].start >= _LIVE_SHORT_SECONDS][-1:]
    else:
        early = [index for index in found[:-1] if spans[index].end <= seconds - _LIVE_UNSURE_SECONDS]
        sure = [index for index in early if gap(index) >= _PAUSE_SECONDS][-1:]
        if not sure and fits and len(early) >= _LIVE_FEW_WORDS:
            sure = [max(early[-_LIVE_LAST_WORDS:], key=lambda index: (gap(index), index))]
    if not sure:
        return 0, 0.0
    cut = sure[0]
    end = spans[cut].end
    next_start = spans[following[cut]].start if cut in following else seconds
    return cut + 1, end + max(0.0, min(next_start - end, 0.6)) / 2


def _seconds_quiet(speech: LoudFrames) -> float:
    """Seconds since the last loud frame."""
    loud_frames = np.flatnonzero(speech)
    return (len(speech) - 1 - int(loud_frames[-1])) / FRAME_RATE if len(loud_frames) else len(speech) / FRAME_RATE


def _loud_part(speech: LoudFrames, start: float, end: float) -> Times:
    """The part of a gap between its first and its last loud frame."""
    first = int(start * FRAME_RATE)
    frames = np.flatnonzero(speech[first : int(end * FRAME_RATE)])
    if not len(frames):
        return start, start
    return (first + int(frames[0])) / FRAME_RATE, (first + int(frames[-1]) + 1) / FRAME_RATE
