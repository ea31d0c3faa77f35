"""Gives times to words that were not heard, if there is room between the words around them.

A slurred "of" is missed by both recognisers, but its place is clear: the speech between its neighbours. For a word that was never
said there is no such speech.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from aligner_svc.engines.pocketsphinx.ladder import Placement

Times = tuple[float, float]
"""Start and end in seconds."""

_MAX_RUN = 3  # words in a row; more of them missing is a passage that was left out, not slurred
_MIN_SHARE = 0.5  # of the usual duration. Fluent speech leaves no gap between neighbours; a reduced word keeps more than half
_PHONE_SECONDS = 0.065  # a phone in fluent English; those of function words are shorter, those of content words longer
_MIN_HEARD = 0.5  # share of all words that must have been heard: gaps between chance hits of a wrong transcript mean nothing


def repair(
    placements: Sequence[Placement | None], phones: Sequence[int], narrow: Callable[[float, float], Times]
) -> dict[int, Times]:
    """Times of the unheard words that have room between their heard neighbours.

    `phones[i]`: number of phones of word i. `narrow` reduces a gap (start, end) to the speech in it.
    """
    heard = [(index, placement) for index, placement in enumerate(placements) if placement is not None]
    if len(heard) < _MIN_HEARD * len(placements):
        return {}
    repaired: dict[int, Times] = {}
    for (left, before), (right, after) in pairwise(heard):
        run = range(left + 1, right)
        if not 0 < len(run) <= _MAX_RUN:
            continue
        at, end = narrow(before.end, after.start)
        seconds, total = end - at, sum(phones[index] for index in run)
        if seconds < _MIN_SHARE * _PHONE_SECONDS * total:
            continue
        for index in run:
            until = at + seconds * phones[index] / total
            repaired[index] = (at, until)
            at = until
    return repaired
