"""Which words are there at all, by the phoneme recogniser: in a whole window, or only around a few words in doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.engines.pocketsphinx.recogniser import Segment
from aligner_svc.engines.pocketsphinx.skipping import Sighting, align_skipping

Samples = npt.NDArray[np.int16]

_NEIGHBOURS = 2
"""Words on each side that are heard with one in doubt: it is there or not in comparison with them."""
_LONE_SKIP_COST = 7.0
"""Nats. Where all but a few words fit, the transcript deserves more faith than where none do."""
_SHORT_WORD = 3
"""Labels of a word like "do" or "your": people swallow them, and there is little in them to be missed."""
_SHORT_WORD_BONUS = 10.0
_MARGIN = 0.25
"""Seconds of audio on each side of those."""


class Spelling(Protocol):
    """What is needed of PhonemeModel."""

    blank: int

    def spell(self, word: str) -> tuple[int, ...]: ...

    def log_probabilities(self, samples: Samples) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class Heard:
    """What was listened for: word -> where it was heard, None where it was not.

    Words that were not listened for are missing. Words from `reached` on may come later.
    """

    sightings: Mapping[int, Sighting | None]
    reached: int
    end: float
    """Seconds at which the last word before `reached` ends."""
    whole: bool
    """Was every word listened for?"""


def listen(phonemes: Spelling, samples: Samples, words: Sequence[str], exits: Sequence[int], lone: bool = False) -> Heard:
    """Every word, in all of the audio; `exits` as in Ladder.align; `lone`: as the words around fit."""
    spelled = [phonemes.spell(word) or (phonemes.blank,) for word in words]
    costs = [_LONE_SKIP_COST + _SHORT_WORD_BONUS * (len(labels) <= _SHORT_WORD) for labels in spelled] if lone else None
    skipped = align_skipping(phonemes.log_probabilities(samples), spelled, phonemes.blank, exits or None, costs)
    found = skipped.words[: skipped.reached]
    return Heard(
        dict(enumerate(found)), skipped.reached, max((word.end for word in found if word is not None), default=0.0), True
    )


def listen_near(
    phonemes: Spelling, samples: Samples, words: Sequence[str], segments: Sequence[Segment], doubtful: Sequence[int]
) -> Heard:
    """Only the `doubtful` words and their neighbours; the rest is where `segments` has it."""
    sightings: dict[int, Sighting | None] = {}
    for first, last in _groups(doubtful, len(segments)):
        begin = max(0.0, segments[first].start - _MARGIN)
        piece = samples[int(begin * SAMPLE_RATE) : int((segments[last].end + _MARGIN) * SAMPLE_RATE)]
        heard = listen(phonemes, piece, words[first : last + 1], (), lone=True)
        for index in range(first, last + 1):
            sighting = heard.sightings[index - first]
            if index in doubtful:
                sightings[index] = sighting and replace(sighting, start=sighting.start + begin, end=sighting.end + begin)
    return Heard(sightings, len(segments), segments[-1].end, False)


def _groups(doubtful: Sequence[int], count: int) -> list[tuple[int, int]]:
    """[first, last] of the neighbourhoods, those that touch made one."""
    groups: list[tuple[int, int]] = []
    for index in doubtful:
        first, last = max(0, index - _NEIGHBOURS), min(count - 1, index + _NEIGHBOURS)
        if groups and first <= groups[-1][1] + 1:
            groups[-1] = (groups[-1][0], last)
        else:
            groups.append((first, last))
    return groups
