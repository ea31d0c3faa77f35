"""From what the recognisers measured to what a caller may believe.

Each figure is a fact about the two recognisers on hand-marked English read speech,
clean and in white noise; `make bench-accuracy` prints how well they hold.
"""

from __future__ import annotations

import math

from aligner_svc.engines.pocketsphinx.ladder import Placement

REPAIRED_CONFIDENCE = 0.4


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-min(50.0, max(-50.0, value))))


def confidence(placement: Placement, noisy: bool) -> float:
    """Probability that both ends lie within 100 ms of where a person would mark them."""
    if placement.score is None:
        return _logistic(1.2 - 0.8 * (placement.gap or 0.0))
    return _logistic(5.5 + 0.9 * placement.score - (1.0 if noisy else 0.0))


def evidence(placement: Placement | None) -> float:
    """How much a word speaks for transcript and audio belonging together, 0..1."""
    if placement is None:
        return 0.0
    if placement.score is None:
        return _logistic(3.0 - 2.0 * (placement.gap or 0.0))
    return _logistic((placement.score + 3.5) / 0.4)
