"""Words nobody heard, between words that were: is there room for them?

A slurred "of" is missed by both recognisers but its place is plain: the stretch of
speech between its neighbours. A word that was never said has no such stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from aligner_svc.engines.pocketsphinx.ladder import Placement

_MAX_RUN = 3
"""Words in a row; more of them missing is a passage that was left out, not slurred."""
_MIN_SHARE = 0.5
"""Of the usual duration. Fluent speech leaves none between neighbours, a reduced word keeps more than half."""
_PHONE_SECONDS = 0.065
"""A phone in fluent English; function words are quicker, content words slower."""
_LEAST_HEARD = 0.5
"""Share of all words that must have been heard: gaps between chance hits of a wrong transcript mean nothing."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Seconds."""

    start: float
    end: float


def repair(
    placements: Sequence[Placement | None], phones: Sequence[int], narrow: Callable[[Gap], Gap]
) -> dict[int, tuple[float, float]]:
    """Times (seconds) of the unheard words that have room between their heard neighbours.

    `phones[i]`: how many phones word i has. `narrow` shrinks a gap to the speech in it.
    """
    heard = [index for index, placement in enumerate(placements) if placement is not None]
    if len(heard) < _LEAST_HEARD * len(placements):
        return {}
    repaired: dict[int, tuple[float, float]] = {}
    for left, right in pairwise(heard):
        run = range(left + 1, right)
        before, after = placements[left], placements[right]
        if not 0 < len(run) <= _MAX_RUN or before is None or after is None:
            continue
        gap = narrow(Gap(before.end, after.start))
        total = sum(phones[index] for index in run)
        if gap.end - gap.start < _MIN_SHARE * _PHONE_SECONDS * total:
            continue
        at = gap.start
        for index in run:
            until = at + (gap.end - gap.start) * phones[index] / total
            repaired[index] = (at, until)
            at = until
    return repaired
