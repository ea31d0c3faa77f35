"""CTC alignment that may skip words and may leave audio unexplained.

Viterbi over a chain of words. Between words there is a blank and a wildcard, which explains any frame at a fixed cost below the
best label of that frame, and costs as much again to enter and to leave; from any word boundary to a later one there is a jump, at
a fixed cost a word. So a word is kept only if its own labels explain the audio better than the wildcard, and a word that stands
alone in unexplained audio only if it does so by the cost of a second gap: else a short word of a text is found too early, in
whatever was said before.

The costs were chosen on 98 joins of one half of the TIMIT sample's speakers (bench/joins.py): of 1,347 said words one is off by
more than 0.5 s and 36 are not detected, of 1,128 absent ones none is. Without a cost of gaps these are 8, 86 and 16. With one
word of 70 sentences replaced or inserted, 26 of 785 said words are not detected and 3 of the 70 absent ones are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from aligner_svc.engines.pocketsphinx.phonemes import FRAME_SECONDS, FloatArray

WILDCARD_COST = 2.4
"""Nats a frame below the best label; a frame that is best explained by the blank costs no more than with the blank."""
GAP_COST = np.float32(6.0)
"""Nats for the first frame of unexplained audio after a word, and again for the first word after it; none at the ends."""
SKIP_COST = 5.0
"""Nats a word."""
LEAP_COST = np.float32(40.0)
"""Nats for skipping any number of words at once: a passage of the text that was not read."""
EXCERPT_LEAP_COST = np.float32(8.0)
"""The same before the first word that is kept and after the last one, in an excerpt. With 40, clips of 3 to 8 words out of the
middle of a text lost 37 of 55 words, with 8 two."""
_START_LAG = 0.080
"""Seconds. CTC peaks late: word starts are this much after the marked ones, ends are on time (medians over TIMIT)."""
_NEVER = np.float32(-1e9)
_ENTER: Final = 3
"""A move into a word or gap, from wherever its boundary is reached best; smaller ones are how many states it goes on."""

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Detection:
    """A word that was detected. Seconds; `gap`: nats a label by which the audio's best labels exceed the word's."""

    start: float
    end: float
    gap: float


@dataclass(frozen=True, slots=True)
class Skipped:
    """`words[i]` is None if word i was skipped; `reached` words were consumed (all unless the end was open).

    `unexplained`: whether each frame is speech that belongs to no word.
    """

    words: Sequence[Detection | None]
    reached: int
    unexplained: npt.NDArray[np.bool_]


class _Chain:
    """The states: a blank and a wildcard for every boundary, and for every word its labels with blanks between."""

    def __init__(self, words: Sequence[Sequence[int]], blank: int) -> None:
        labels: list[int] = []
        owner: list[int] = []
        gaps, wildcards, firsts, lasts = [], [], [], []
        for index in range(len(words) + 1):
            gaps.append(len(labels))
            wildcards.append(len(labels) + 1)
            labels += [blank, -1]
            owner += [-1, -1]
            if index < len(words):
                firsts.append(len(labels))
                for place, label in enumerate(words[index]):
                    spelled = [label] if place == 0 else [blank, label]
                    labels += spelled
                    owner += [index] * len(spelled)
                lasts.append(len(labels) - 1)
        self.blank = blank
        self.labels = np.array(labels)
        self.owner = np.array(owner)
        self.wildcard = self.labels < 0
        self.emitted = np.where(self.wildcard, blank, self.labels)
        self.gaps, self.wildcards = np.array(gaps), np.array(wildcards)
        self.firsts, self.lasts = np.array(firsts, dtype=np.int64), np.array(lasts, dtype=np.int64)
        self.boundary = np.zeros(len(labels), dtype=np.int64)  # of a state that is entered at one
        self.boundary[self.gaps] = self.boundary[self.wildcards] = np.arange(len(gaps))
        self.boundary[self.firsts] = np.arange(len(firsts))
        size = len(labels)
        self.advance = (self.owner >= 0) & ~np.isin(np.arange(size), self.firsts)
        before = np.concatenate([[-1, -1], self.labels[:-2]])
        # CTC: the blank between two labels may be skipped only if they differ
        self.hop = self.advance & (self.labels != blank) & (self.labels != before)
        self.hop[self.firsts] = False


def align_skipping(
    log_probabilities: FloatArray,
    words: Sequence[Sequence[int]],
    blank: int,
    exits: Sequence[int] | None = None,
    skip_costs: Sequence[float] | None = None,
    *,
    excerpt: bool = False,
) -> Skipped:
    """Align `words` (label ids, each non-empty) to `log_probabilities` [frames, labels].

    `exits`: counts of words after which the audio may end; None: all words are consumed. `skip_costs`: nats for each word.
    `excerpt`: there is more text than the audio can hold, so that most of it comes before or after.
    Time and memory: frames x states, one numpy step a frame; 1 byte for each, and 4 for each frame and word: 8 MB for 600 words
    in 20 s.
    """
    if not words or not len(log_probabilities):
        return Skipped([None] * len(words), len(words), np.zeros(len(log_probabilities), dtype=bool))
    chain = _Chain(words, blank)
    end_leap_cost = EXCERPT_LEAP_COST if excerpt else LEAP_COST
    frames, count = len(log_probabilities), len(words)
    best = log_probabilities.max(axis=1)
    skip_offsets = np.cumsum([0.0, *(skip_costs or [SKIP_COST] * count)]).astype(np.float32)
    boundaries, size = np.arange(count + 1), len(chain.labels)

    def entries(score: FloatArray, close: np.float32, leap_cost: np.float32 = LEAP_COST) -> tuple[FloatArray, IntArray]:
        """Best score at each word boundary, skips included, and the state it came from; `close`: for leaving a wildcard."""
        blank_score, wild_score = score[chain.gaps], score[chain.wildcards] - close
        value = np.maximum(blank_score, wild_score)
        source = np.where(blank_score >= wild_score, chain.gaps, chain.wildcards)
        finished = np.full(count + 1, _NEVER, dtype=np.float32)
        finished[1:] = score[chain.lasts]
        source = np.where(finished > value, np.concatenate([[0], chain.lasts]), source)
        value = np.maximum(value, finished)
        lifted = value + skip_offsets
        highest = np.maximum.accumulate(lifted)
        origin = np.maximum.accumulate(np.where(lifted >= highest, boundaries, 0))
        best_here = highest - skip_offsets
        leaps = np.maximum.accumulate(value)
        leap_origin = np.maximum.accumulate(np.where(value >= leaps, boundaries, 0))
        leap = leaps - leap_cost > best_here
        return np.where(leap, leaps - leap_cost, best_here), source[np.where(leap, leap_origin, origin)]

    def emissions(frame: int) -> FloatArray:
        unexplained = max(best[frame] - WILDCARD_COST, log_probabilities[frame, blank])
        scores = np.where(chain.wildcard, unexplained, log_probabilities[frame, chain.emitted])
        return scores.astype(np.float32, copy=False)

    moves = np.zeros((frames, size), dtype=np.uint8)
    entered = np.zeros((frames, count + 1), dtype=np.int32)  # the state from which each boundary is reached
    score = np.full(size, _NEVER, dtype=np.float32)
    opening = np.maximum(-skip_offsets, np.where(boundaries > 0, -end_leap_cost, 0)).astype(np.float32)
    score[chain.gaps] = score[chain.wildcards] = opening  # unexplained audio at the ends has one neighbour: half the cost
    score[chain.firsts] = opening[:-1]
    score += emissions(0)
    for frame in range(1, frames):
        stand, entered[frame] = entries(score, GAP_COST)
        new, move = score.copy(), moves[frame]
        for allowed, step in ((chain.advance, 1), (chain.hop, 2)):
            shifted = np.concatenate([np.full(step, _NEVER, dtype=np.float32), score[:-step]])
            better = allowed & (shifted > new)
            new[better], move[better] = shifted[better], step
        for targets, value in ((chain.gaps, stand), (chain.wildcards, stand - GAP_COST), (chain.firsts, stand[:-1])):
            better = value > new[targets]
            new[targets[better]], move[targets[better]] = value[better], _ENTER
        new += emissions(frame)
        score = new
    stand, stand_from = entries(score, np.float32(0), end_leap_cost)
    reached = count
    if exits is not None:
        allowed_ends = np.array(sorted({0, count, *exits}))
        reached = int(allowed_ends[np.argmax(stand[allowed_ends])])
    path = _path(chain, moves, entered, int(stand_from[reached]))
    unexplained = chain.wildcard[path] & (log_probabilities[:, blank] < best)
    return Skipped(_detections(chain, path, log_probabilities, best, words), reached, unexplained)


def _path(chain: _Chain, moves: npt.NDArray[np.uint8], entered: npt.NDArray[np.int32], state: int) -> IntArray:
    """The states of all frames, from the last one back."""
    path = np.empty(len(moves), dtype=np.int64)
    for frame in range(len(path) - 1, -1, -1):
        path[frame] = state
        move = int(moves[frame, state])
        state = int(entered[frame, chain.boundary[state]]) if move == _ENTER else state - move
    return path


def _detections(
    chain: _Chain, path: IntArray, log_probabilities: FloatArray, best: FloatArray, words: Sequence[Sequence[int]]
) -> list[Detection | None]:
    owners = chain.owner[path]
    shortfall = best - log_probabilities[np.arange(len(path)), chain.emitted[path]]
    found: list[Detection | None] = [None] * len(words)
    for index in np.unique(owners[owners >= 0]).tolist():
        frames = np.flatnonzero(owners == index)
        start, end = frames[0] * FRAME_SECONDS - _START_LAG, (frames[-1] + 1) * FRAME_SECONDS
        found[index] = Detection(max(0.0, start), end, float(shortfall[frames].sum()) / len(words[index]))
    return found
