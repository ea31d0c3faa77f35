"""Aligns one window of another language: the times of its tokens, how many of them are final, where the next window begins."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from aligner_svc.domain import SAMPLE_RATE, WordStatus
from aligner_svc.engines.denoise import denoise
from aligner_svc.engines.loudness import FRAME_RATE, levels, limits, loud
from aligner_svc.engines.pocketsphinx.boundaries import BoundaryRefiner, Refined, WordSpan
from aligner_svc.engines.pocketsphinx.ladder import CLEAN_RANGE_DB
from aligner_svc.engines.pocketsphinx.languages import confidence
from aligner_svc.engines.pocketsphinx.languages.ipa import Ways, phones_of
from aligner_svc.engines.pocketsphinx.languages.pauses import at_pauses, without_gaps
from aligner_svc.engines.pocketsphinx.languages.recogniser import PhoneRecogniser
from aligner_svc.engines.pocketsphinx.languages.spelling import LanguageSpeller
from aligner_svc.engines.pocketsphinx.recogniser import Segment
from aligner_svc.engines.pocketsphinx.wire import TokenSpan
from aligner_svc.engines.windows import Prefix

Samples = npt.NDArray[np.int16]

_UNSURE_SECONDS = 1.5
"""At the end of an open window: the word that is cut off there spoils the times of those before it."""
_CUT_AMONG = 12
"""Of so many last words that are sure, the one before the longest pause ends the window."""
_LIVE_UNSURE_SECONDS, _LIVE_CUT_AMONG = 1.0, 4
"""The same of a growing window."""
_LIVE_EVIDENCE = 0.5
"""Mean evidence of the words of a growing window from which on some are final: the model fits other speech less well."""
_PHONES_A_SECOND = 22
"""More than anyone speaks: words beyond them are left to the next window."""


class LanguageWindowAligner:
    """All models of one worker. Not thread-safe."""

    def __init__(self, recogniser: PhoneRecogniser, speller: LanguageSpeller, refiner: BoundaryRefiner) -> None:
        self._recogniser = recogniser
        self._speller = speller
        self._refiner = refiner

    def align(
        self, samples: Samples, tokens: Sequence[Sequence[str]], language: str, last: bool, complete: bool, *, live: bool = False
    ) -> Prefix[TokenSpan]:
        """As WindowAligner.align, for the tokens of a language that the speller knows."""
        seconds = len(samples) / SAMPLE_RATE
        words: Sequence[Sequence[Ways]] = self.spoken(tokens, language)
        closed = last and complete
        if not closed:
            words = _that_fit(words, seconds)
        if live:
            return self._begun(samples, words)
        spans: Sequence[TokenSpan] = self._place(samples, words, closed)
        if not spans:
            count = len(words) if last else 0
            return Prefix([_absent()] * count, seconds if last else seconds - _UNSURE_SECONDS, 0.0)
        resume = seconds
        if not last:
            spans, resume = _cut(spans, seconds)
        return Prefix(spans, resume, _coverage(samples, spans))

    def spoken(self, tokens: Sequence[Sequence[str]], language: str) -> list[list[Ways]]:
        """How the words of each token are said; those that have no sound are left out."""
        return [[ways for word in token if (ways := self._speller.ways(word, language))] for token in tokens]

    def _begun(self, samples: Samples, words: Sequence[Sequence[Ways]]) -> Prefix[TokenSpan]:
        """What is final of a growing window. Without a second try on denoised audio: that waits for the whole window."""
        flat, ends = _flat(words)
        segments = self._recogniser.align(samples, flat, [0, *ends])
        if not segments:
            return Prefix((), 0.0, 0.0)
        spans: Sequence[TokenSpan] = self._spans(samples, segments, ends)
        coverage, seconds = _coverage(samples, spans), len(samples) / SAMPLE_RATE
        found = [span.evidence for span in spans if span.status is not WordStatus.NOT_FOUND]
        if not found or float(np.mean(found)) < _LIVE_EVIDENCE:
            return Prefix((), 0.0, coverage)
        spans, resume = _cut(spans, seconds, _LIVE_UNSURE_SECONDS, _LIVE_CUT_AMONG)
        return Prefix(spans, resume, coverage)

    def _place(self, samples: Samples, words: Sequence[Sequence[Ways]], closed: bool) -> list[TokenSpan]:
        """Spans of the leading tokens; empty if nothing was found. `closed`: audio and words end together."""
        flat, ends = _flat(words)
        exits = [0, *ends]
        for audio in (samples, denoise(samples)):
            for open_after in ((), exits) if closed else (exits,):
                segments = self._recogniser.align(audio, flat, open_after)
                if segments:
                    return self._spans(samples, segments, ends)
        return []

    def _spans(self, samples: Samples, segments: Sequence[Segment], ends: Sequence[int]) -> list[TokenSpan]:
        refined = refine(self._refiner, samples, segments)
        scores = confidence.probabilities(segments, refined)
        spans: list[TokenSpan] = []
        begin = 0
        for end in ends:
            if end > len(segments):
                break
            spans.append(_fold(refined[begin:end], segments[begin:end], scores[begin:end]) if end > begin else _absent())
            begin = end
        return spans


def refine(refiner: BoundaryRefiner, samples: Samples, segments: Sequence[Segment]) -> list[Refined]:
    """The words of `segments` with their edges where they are heard."""
    refined = refiner.refine(samples, [WordSpan(word.start, word.end, word.phones) for word in segments])
    given = levels(samples)
    background, speech = limits(given)
    if speech - background >= CLEAN_RANGE_DB:
        refined = at_pauses(refined, loud(given))
    return without_gaps(refined)


def _fold(edges: Sequence[Refined], segments: Sequence[Segment], scores: Sequence[float]) -> TokenSpan:
    """Combine the spoken words of one token."""
    evidence = float(np.mean([confidence.evidence(segment.score) for segment in segments]))
    return TokenSpan(edges[0].start, edges[-1].end, float(np.mean(scores)), evidence, WordStatus.ALIGNED)


def _flat(words: Sequence[Sequence[Ways]]) -> tuple[list[Ways], list[int]]:
    """The spoken words of all tokens, and for each token how many there are up to its end."""
    return [ways for token in words for ways in token], np.cumsum([len(token) for token in words]).tolist()


def _absent() -> TokenSpan:
    return TokenSpan(0.0, 0.0, 0.0, 0.0, WordStatus.NOT_FOUND)


def _that_fit(words: Sequence[Sequence[Ways]], seconds: float) -> Sequence[Sequence[Ways]]:
    room = _PHONES_A_SECOND * seconds
    for count, token in enumerate(words):
        room -= sum(len(phones_of(ways[0])) for ways in token)
        if room < 0:
            return words[: max(1, count)]
    return words


def _cut(
    spans: Sequence[TokenSpan], seconds: float, unsure: float = _UNSURE_SECONDS, most: int = _CUT_AMONG
) -> tuple[Sequence[TokenSpan], float]:
    """The tokens of an open window that are final, and the second in it at which the next window begins."""
    sure = [index for index, span in enumerate(spans) if span.end <= seconds - unsure]
    if not sure:
        return [], max(1.0, seconds - unsure)
    pauses = {before: spans[after].start - spans[before].end for before, after in pairwise(range(len(spans))) if before in sure}
    among = sure[-most:]
    cut = max(among, key=lambda index: (pauses.get(index, 0.0), index))
    return spans[: cut + 1], spans[cut].end + max(0.0, min(pauses.get(cut, 0.0), 0.6)) / 2


def _coverage(samples: Samples, spans: Sequence[TokenSpan]) -> float:
    """See Prefix; 1 if nothing is loud."""
    speech = loud(levels(samples))
    covered = np.zeros(len(speech), dtype=bool)
    for span in spans:
        covered[int(span.start * FRAME_RATE) : int(span.end * FRAME_RATE)] = True
    return float((speech & covered).sum() / speech.sum()) if speech.any() else 1.0
