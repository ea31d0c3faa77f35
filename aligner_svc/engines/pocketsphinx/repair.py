"""Gives times to words that were not heard, if there is room between the words around them, and to those that got too little.

A slurred "of" is missed by both recognisers, but its place is clear: the speech between its neighbours. For a word that was never
said there is no such speech.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from aligner_svc.engines.pocketsphinx.ladder import LONGEST_PHONE, LONGEST_WORD, Placement

Times = tuple[float, float]
"""Start and end in seconds."""

_MAX_RUN = 3  # words in a row; more of them missing is a passage that was left out, not slurred
_MIN_SHARE = 0.5  # of the usual duration. Fluent speech leaves no gap between neighbours; a reduced word keeps more than half
_PHONE_SECONDS = 0.065  # a phone in fluent English; those of function words are shorter, those of content words longer
_MIN_HEARD = 0.5  # share of all words that must have been heard: gaps between chance hits of a wrong transcript mean nothing
_MIN_PASSAGE = (
    4  # or as many, and that share of the words between the first and the last of them: most of the text is not of this clip
)

_LEAST_WORD, _LEAST_PHONE = 0.03, 0.015
"""Seconds that a word and each of its phones take at least: the shortest "a" that people marked in TIMIT has 34 ms."""


def without_short(placements: Sequence[Placement | None]) -> tuple[list[Placement | None], dict[int, Times]]:
    """Takes out the words that are shorter than their sounds can be.

    The recogniser and its refiner may leave a word 10 ms: it fell between two better ones, or the edges were moved together. One
    whose sound fits gets the least time around its middle, from its neighbours; returned apart, as it is no measurement.
    """
    kept = list(placements)
    short = [
        index
        for index, word in enumerate(placements)
        if word is not None and word.end - word.start < max(_LEAST_WORD, _LEAST_PHONE * len(word.phones)) - 1e-6
    ]
    for index in short:
        kept[index] = None
    widened: dict[int, Times] = {}
    for index in short:
        word = placements[index]
        if word is None or word.score is None or {index - 1, index + 1} & set(short):
            continue
        half = max(_LEAST_WORD, _LEAST_PHONE * len(word.phones)) / 2
        middle = (word.start + word.end) / 2
        start, end = max(0.0, middle - half), middle + half
        before = kept[index - 1] if index else None
        after = kept[index + 1] if index + 1 < len(kept) else None
        if before is not None and before.end > start:
            kept[index - 1] = replace(before, end=max(before.start, start))
        if after is not None and after.start < end:
            kept[index + 1] = replace(after, start=min(after.end, end))
        widened[index] = (start, end)
    return kept, widened


def repair(
    placements: Sequence[Placement | None], phones: Sequence[int], narrow: Callable[[float, float], Times]
) -> dict[int, Times]:
    """Times of the unheard words that have room between their heard neighbours.

    `phones[i]`: number of phones of word i. `narrow` reduces a gap (start, end) to the speech in it; in more than the words can
    take, something else was said.
    """
    heard = [(index, placement) for index, placement in enumerate(placements) if placement is not None]
    if len(heard) < _MIN_HEARD * len(placements):
        within = heard[-1][0] - heard[0][0] + 1 if heard else 0
        if len(heard) < max(_MIN_PASSAGE, _MIN_HEARD * within):
            return {}
    repaired: dict[int, Times] = {}
    for (left, before), (right, after) in pairwise(heard):
        run = range(left + 1, right)
        if not 0 < len(run) <= _MAX_RUN:
            continue
        at, end = narrow(before.end, after.start)
        seconds, total = end - at, sum(phones[index] for index in run)
        longest = sum(LONGEST_WORD + LONGEST_PHONE * phones[index] for index in run)
        if not _MIN_SHARE * _PHONE_SECONDS * total <= seconds <= longest:
            continue
        for index in run:
            until = at + seconds * phones[index] / total
            repaired[index] = (at, until)
            at = until
    return repaired
