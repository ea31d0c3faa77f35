"""What one window answers: tokens in time, how many of them are final, where the next window begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np

from aligner_svc.domain import SAMPLE_RATE, WordStatus
from aligner_svc.engines.pocketsphinx import calibration
from aligner_svc.engines.pocketsphinx.boundaries import BoundaryRefiner, WordSpan
from aligner_svc.engines.pocketsphinx.ladder import Ladder, Placement, loudness
from aligner_svc.engines.pocketsphinx.lexicon import Speller
from aligner_svc.engines.pocketsphinx.repair import Gap, repair
from aligner_svc.engines.pocketsphinx.second_opinion import Samples
from aligner_svc.engines.pocketsphinx.wire import TokenSpan, WindowAnswer

_UNSURE_SECONDS = 1.5
"""At the end of an open window: the word that is cut there spoils its neighbours' times."""
_PAUSE_SECONDS = 0.1
"""A pause this long is a good place to cut, ..."""
_PAUSE_SEARCH_SECONDS = 4.0
"""... and this much audio is worth hearing twice to find one."""


class WindowAligner:
    """Everything one worker knows. Not thread-safe."""

    def __init__(self, ladder: Ladder, speller: Speller, refiner: BoundaryRefiner) -> None:
        self._ladder = ladder
        self._speller = speller
        self._refiner = refiner

    def align(self, samples: Samples, tokens: Sequence[Sequence[str]], last: bool, complete: bool) -> WindowAnswer:
        """`tokens[i]` are the spoken words of token i.

        Not `last`: the audio goes on after the window. Not `complete`: tokens go on after these.
        """
        words = [word for token in tokens for word in token]
        ends = np.cumsum([len(token) for token in tokens]).tolist()
        window = self._ladder.align(samples, words, () if last and complete else (0, *ends))
        placements = _refine(samples, window.placements, self._refiner)
        repaired = self._repair(samples, words, placements[: window.reached], window.noisy)
        spans = []
        for begin, end in zip([0, *ends], ends, strict=False):
            indices = range(begin, end)
            spans.append(_fold([placements[i] for i in indices], [repaired[i] for i in indices if i in repaired]))
        if last:
            count = len(tokens) if complete else sum(end <= window.reached for end in ends)
            return WindowAnswer(_place_absent(spans[:count]), len(samples) / SAMPLE_RATE, _coherence(spans[:count]))
        count, resume = _cut(spans, len(samples) / SAMPLE_RATE)
        return WindowAnswer(_place_absent(spans[:count]), resume, _coherence(spans[:count]))

    def _repair(
        self, samples: Samples, words: Sequence[str], placements: Sequence[Placement | None], noisy: bool
    ) -> dict[int, tuple[float, float]]:
        if None not in placements:
            return {}
        phones = [len(self._speller.phones(word)) for word in words[: len(placements)]]
        return repair(placements, phones, lambda gap: _speech(samples, gap, noisy))


def _fold(placements: Sequence[Placement | None], repaired: Sequence[tuple[float, float]]) -> TokenSpan:
    """The spoken words of one token as one span."""
    found = [placement for placement in placements if placement is not None]
    worth = float(np.mean([calibration.evidence(placement) for placement in placements]))
    if found:
        starts = [placement.start for placement in found] + [start for start, _ in repaired]
        ends = [placement.end for placement in found] + [end for _, end in repaired]
        sure = float(np.mean([calibration.confidence(placement) for placement in found])) * len(found) / len(placements)
        return TokenSpan(min(starts), max(ends), sure, worth, WordStatus.ALIGNED)
    if len(repaired) == len(placements):
        return TokenSpan(repaired[0][0], repaired[-1][1], calibration.REPAIRED_CONFIDENCE, worth, WordStatus.REPAIRED)
    return TokenSpan(0.0, 0.0, 0.0, 0.0, WordStatus.NOT_FOUND)


def _coherence(spans: Sequence[TokenSpan]) -> float:
    """Share of the tokens that were heard, the longest omission aside; 0 without any."""
    absent = [len(list(run)) for status, run in groupby(span.status for span in spans) if status is WordStatus.NOT_FOUND]
    considered = len(spans) - max(absent, default=0)
    return (len(spans) - sum(absent)) / considered if considered else 0.0


def _place_absent(spans: Sequence[TokenSpan]) -> list[TokenSpan]:
    """A word that is not in the audio stands where the last one that is ended."""
    placed: list[TokenSpan] = []
    at = 0.0
    for span in spans:
        if span.status is WordStatus.NOT_FOUND:
            placed.append(TokenSpan(at, at, 0.0, 0.0, WordStatus.NOT_FOUND))
        else:
            placed.append(span)
            at = span.end
    return placed


def _cut(spans: Sequence[TokenSpan], seconds: float) -> tuple[int, float]:
    """How many tokens of an open window are final, and where in it the next window begins."""
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


def _speech(samples: Samples, gap: Gap, noisy: bool) -> Gap:
    """The loud part of a gap; in noise loudness says nothing and the gap stands."""
    if noisy:
        return gap
    first = int(gap.start * 200)
    loud = np.flatnonzero(loudness(samples)[first : int(gap.end * 200)])
    if not len(loud):
        return Gap(gap.start, gap.start)
    return Gap((first + int(loud[0])) / 200, (first + int(loud[-1]) + 1) / 200)


def _refine(samples: Samples, placements: Sequence[Placement | None], refiner: BoundaryRefiner) -> list[Placement | None]:
    """The same placements with refined times; words without phones stay where they are."""
    chosen = [(index, placement) for index, placement in enumerate(placements) if placement is not None and placement.phones]
    words = [WordSpan(placement.start, placement.end, placement.phones[0], placement.phones[-1]) for _, placement in chosen]
    refined = list(placements)
    for (index, placement), word in zip(chosen, refiner.refine(samples, words), strict=True):
        refined[index] = replace(placement, start=word.start, end=word.end, spread=word.spread)
    return refined
