"""Which words were said at all, by the phoneme recogniser: in a whole window, or only around a few doubtful words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.engines.pocketsphinx.phonemes import FRAME_SECONDS
from aligner_svc.engines.pocketsphinx.recogniser import Segment
from aligner_svc.engines.pocketsphinx.skipping import Detection, align_skipping

Samples = npt.NDArray[np.int16]

_NEIGHBOURS = 2  # words on each side that are aligned with a doubtful one: whether it was said is decided in comparison with them
_NEIGHBOUR_SKIP_COST = 7.0  # nats. If all but a few words fit, the transcript is more likely to be right
_SHORT_WORD, _SHORT_WORD_BONUS = 3, 10.0
"""Labels of a word like "do" or "your", and nats: people swallow them, and there is little in them to be detected."""
_PASSAGE_SECONDS = 0.3
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
    whole: bool  # every word was searched for
    unexplained: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    """Whether each frame (FRAME_SECONDS) is speech that belongs to no word; only of a `whole` search."""

    def passages(self) -> list[list[int]]:
        """The words that were detected, cut where there is unexplained speech of _PASSAGE_SECONDS or more between two."""
        passages: list[list[int]] = []
        before: Detection | None = None
        for index, word in sorted(self.detections.items()):
            if word is None:
                continue
            between = slice(int(before.end / FRAME_SECONDS), int(word.start / FRAME_SECONDS)) if before else slice(0, 0)
            apart = self.unexplained[between].sum() * FRAME_SECONDS >= _PASSAGE_SECONDS
            if before is None or apart:
                passages.append([])
            passages[-1].append(index)
            before = word
        return passages


def search_all(
    phonemes: PhonemeRecogniser,
    samples: Samples,
    words: Sequence[str],
    exits: Sequence[int],
    *,
    others_fit: bool = False,
    excerpt: bool = False,
) -> SecondOpinion:
    """Search for every word in all of the audio. `exits` as in Ladder.align; `others_fit`: most of the words fit.

    `excerpt` as in align_skipping. A short word that stands alone between unexplained speech counts as not detected: it fits in
    too many places.
    """
    spelled = [phonemes.spell(word) or (phonemes.blank,) for word in words]
    costs = None
    if others_fit:
        costs = [_NEIGHBOUR_SKIP_COST + _SHORT_WORD_BONUS * (len(labels) <= _SHORT_WORD) for labels in spelled]
    skipped = align_skipping(phonemes.log_probabilities(samples), spelled, phonemes.blank, exits or None, costs, excerpt=excerpt)
    opinion = SecondOpinion(dict(enumerate(skipped.words[: skipped.reached])), skipped.reached, True, skipped.unexplained)
    passages = opinion.passages()
    alone = {index for passage in passages for index in passage if sum(len(spelled[other]) for other in passage) <= _SHORT_WORD}
    if len(passages) < 2 or not alone:
        return opinion
    return replace(opinion, detections={index: None if index in alone else word for index, word in opinion.detections.items()})


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
    return SecondOpinion(detections, len(segments), whole=False)


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
