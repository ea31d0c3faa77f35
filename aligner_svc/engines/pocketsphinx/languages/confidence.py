"""Turns what the recogniser measured of words of other languages into probabilities.

The limits of the English ladder do not carry over: sounds that English lacks score worse, right or wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from aligner_svc.engines.pocketsphinx.boundaries import Refined
from aligner_svc.engines.pocketsphinx.recogniser import Segment

_BEST, _WORST = -0.93, -5.93
"""Scores between which a word's evidence falls from 1 to 0. Their middle divides right transcripts from wrong ones: none of 42
and 121 of 126 score below it, sentences of one second among them (docs/languages.md)."""
_POOR, _POOR_CONFIDENCE = -4.2, 0.4
_WORST_SCORE = -8.0


def evidence(score: float) -> float:
    """How strongly a word's score (see Segment) indicates that transcript and audio belong together, 0..1; 0.5 at -3.43."""
    return (min(_BEST, max(_WORST, score)) - _WORST) / (_BEST - _WORST)


def probabilities(segments: Sequence[Segment], edges: Sequence[Refined]) -> list[float]:
    """For each word, that its edges lie about where a person would mark them: within 50 ms, beside marked phrases 75 ms.

    Logistic in its score, its worse neighbour's, the median of all, the length of its phones, how sure the refiner is and the
    number of phones; fitted on marked phrases of four languages, single Greek words and, with a seventh of the weight, TIMIT
    through IPA. Held out by language the area under the curve is 0.63 only: it tells a poor clip from a good one better than a
    wrong word from a right one. A word that hardly fits gets no more than _POOR_CONFIDENCE.
    """
    scores = [max(_WORST_SCORE, segment.score) for segment in segments]
    median = float(np.median(scores))
    found = []
    for index, (segment, edge) in enumerate(zip(segments, edges, strict=True)):
        near = min(scores[max(0, index - 1) : index] + scores[index + 1 : index + 2] or [scores[index]])
        phones = len(segment.phones)
        length = math.log(max(0.01, edge.end - edge.start) / phones)
        value = 2.08 + 0.13 * scores[index] + 0.23 * near - 0.86 * median + 0.15 * length - 14.5 * edge.spread
        probability = 1 / (1 + math.exp(-(value - 0.067 * min(phones, 12))))
        found.append(min(probability, _POOR_CONFIDENCE) if segment.score < _POOR else probability)
    return found
