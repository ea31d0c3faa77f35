"""Sharper times for the words PocketSphinx placed, by the acoustics around each edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aligner_svc.engines.pocketsphinx.boundaries import BoundaryRefiner, WordSpan
from aligner_svc.engines.pocketsphinx.ladder import Placement
from aligner_svc.engines.pocketsphinx.second_opinion import Samples


def refine(samples: Samples, placements: Sequence[Placement | None], refiner: BoundaryRefiner) -> list[Placement | None]:
    """The same placements with refined times; words without phones stay where they are."""
    chosen = [(index, placement) for index, placement in enumerate(placements) if placement is not None and placement.phones]
    words = [WordSpan(placement.start, placement.end, placement.phones[0], placement.phones[-1]) for _, placement in chosen]
    refined = list(placements)
    for (index, placement), word in zip(chosen, refiner.refine(samples, words), strict=True):
        refined[index] = replace(placement, start=word.start, end=word.end, spread=word.spread)
    return refined
