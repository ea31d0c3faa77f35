"""Which words were said at all, by the phoneme recogniser: in a whole window, or only around a few doubtful words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.engines.pocketsphinx.recogniser import Segment
from aligner_svc.engines.pocketsphinx.skipping import Detection, align_skipping

Samples = npt.NDArray[np.int16]

_NEIGHBOURS = 2  # words on each side that are aligned with a doubtful one: whether it was said is decided in comparison with them
_NEIGHBOUR_SKIP_COST = 7.0  # nats. If all but a few words fit, the transcript is more likely to be right
_SHORT_WORD, _SHORT_WORD_BONUS = 3, 10.0
"""Labels of a word like "do" or "your", and nats: people swallow them, and there is little in them to be detected."""
_MARGIN = 0.25  # seconds of audio on each side of a neighbourhood


class PhonemeRecogniser(Protocol):
    """The part of PhonemeModel that is needed here."""

    blank: int

    def spell(self, word: str) -> tuple[int, ...]: ...

    def log_probabilities(self, samples: Samples) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """`detections[i]` is None if word i was not detected; words that were not searched for are missing."""

    detections: Mapping[int, Detection | None]
    reached: int  # words from here on may come later
    end: float  # seconds at which the last word before `reached` ends
    whole: bool  # every word was searched for


def search_all(
    phonemes: PhonemeRecogniser, samples: Samples, words: Sequence[str], exits: Sequence[int], others_fit: bool = False
) -> SecondOpinion:
    """Search for every word in all of the audio. `exits` as in Ladder.align; `others_fit`: most of the words fit."""
    spelled = [phonemes.spell(word) or (phonemes.blank,) for word in words]
    costs = None
    if others_fit:
        costs = [_NEIGHBOUR_SKIP_COST + _SHORT_WORD_BONUS * (len(labels) <= _SHORT_WORD) for labels in spelled]
    skipped = align_skipping(phonemes.log_probabilities(samples), spelled, phonemes.blank, exits or None, costs)
    found = skipped.words[: skipped.reached]
    end = max((word.end for word in found if word is not None), default=0.0)
    return SecondOpinion(dict(enumerate(found)), skipped.reached, end, whole=True)


def search_near(
    phonemes: PhonemeRecogniser, samples: Samples, words: Sequence[str], segments: Sequence[Segment], doubtful: Sequence[int]
) -> SecondOpinion:
    """Search only for the `doubtful` words, with their neighbours; the others are where `segments` has them."""
    detections: dict[int, Detection | None] = {}
    for first, last in neighbourhoods(doubtful, len(segments)):
        begin = max(0.0, segments[first].start - _MARGIN)
        piece = samples[int(begin * SAMPLE_RATE) : int((segments[last].end + _MARGIN) * SAMPLE_RATE)]
        opinion = search_all(phonemes, piece, words[first : last + 1], (), others_fit=True)
        for index in range(first, last + 1):
            found = opinion.detections[index - first]
            if index in doubtful:
                detections[index] = found and replace(found, start=found.start + begin, end=found.end + begin)
    return SecondOpinion(detections, len(segments), segments[-1].end, whole=False)


def neighbourhoods(doubtful: Sequence[int], count: int) -> list[tuple[int, int]]:
    """[first, last] of the words around each of the `doubtful` ones; those that touch are merged."""
    groups: list[tuple[int, int]] = []
    for index in doubtful:
        first, last = max(0, index - _NEIGHBOURS), min(count - 1, index + _NEIGHBOURS)
        if groups and first <= groups[-1][1] + 1:
            groups[-1] = (groups[-1][0], last)
        else:
            groups.append((first, last))
    return groups
