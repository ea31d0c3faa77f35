"""Turns the recognisers' measurements into probabilities for the caller.

Each number was fitted to the two recognisers on hand-marked English read speech, clean, in a room and in noise;
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

    Logistic in how well the word fits, how far the second opinion is from it and how sure the refiner is of its edges. The
    weights of the first two were fitted with foreign words and foreign transcripts, the others on clean speech, a room, babble,
    pink and white noise together. Held out by speaker, stated and actual probability differ by 0.05 at most from 0.4 on.
    """
    score = _UNSCORED if placement.score is None else min(-0.5, max(-8.0, placement.score))
    spread = _UNREFINED if placement.spread is None else placement.spread
    return _logistic(3.96 + 0.31 * score - 0.45 * min(4.0, placement.gap or 0.0) - 49.4 * spread)


def evidence(placement: Placement | None) -> float:
    """How strongly a word indicates that transcript and audio belong together, 0..1."""
    if placement is None:
        return 0.0
    if placement.score is None:
        return _logistic(3.0 - 2.0 * (placement.gap or 0.0))
    return _logistic((placement.score + 3.5) / 0.4)
