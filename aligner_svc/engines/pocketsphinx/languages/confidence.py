"""Turns what the recogniser measured of words of other languages into probabilities.

The limits of the English ladder do not carry over: sounds that English lacks score worse, right or wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from aligner_svc.engines.pocketsphinx.boundaries import Refined
from aligner_svc.engines.pocketsphinx.recogniser import Segment

_BEST, _WORST = -1.0, -6.0
"""Scores between which a word's evidence falls from 1 to 0."""


def evidence(score: float) -> float:
    """How strongly a word's score (see Segment) indicates that transcript and audio belong together, 0..1; 0.5 at -3.5."""
    return (min(_BEST, max(_WORST, score)) - _WORST) / (_BEST - _WORST)


def probabilities(segments: Sequence[Segment], edges: Sequence[Refined]) -> list[float]:
    """For each word, that both its ends lie within 50 ms of where a person would mark them."""
    return [1 / (1 + math.exp(-(3.0 + 0.8 * max(-8.0, segment.score)))) for segment in segments]
