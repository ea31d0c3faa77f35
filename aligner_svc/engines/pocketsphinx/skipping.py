"""CTC alignment that may skip words and may leave audio unexplained.

Viterbi over a chain of words. Between words there is a blank and a wildcard, which explains any frame at a fixed cost below the
best label of that frame; from any word boundary to a later one there is a jump, at a fixed cost a word. So a word is kept only if
its own labels explain the audio better than the wildcard. With words of other sentences inserted, 3 % of them are kept and 6 % of
the real ones lost; plain forced alignment keeps all of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aligner_svc.engines.pocketsphinx.phonemes import FRAME_SECONDS, FloatArray

WILDCARD_COST = 1.2  # nats a frame below the best label
SKIP_COST = 4.0
"""Nats a word. Together with the wildcard's, the best trade-off between real words lost and foreign words kept."""
LEAP_COST = np.float32(60.0)
"""Nats for skipping any number of words at once: a passage of the text that was not read."""
_START_LAG = 0.080
"""Seconds. CTC peaks late: word starts are this much after the marked ones, ends are on time (medians over TIMIT)."""
_NEVER = np.float32(-1e9)

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Detection:
    """A word that was detected. Seconds; `gap`: nats a label by which the audio's best labels exceed the word's."""

    start: float
    end: float
    gap: float


@dataclass(frozen=True, slots=True)
class Skipped:
    """`words[i]` is None if word i was skipped; `reached` words were consumed (all unless the end was open)."""

    words: Sequence[Detection | None]
    reached: int


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
) -> Skipped:
    """Align `words` (label ids, each non-empty) to `log_probabilities` [frames, labels].

    `exits`: counts of words after which the audio may end; None: all words are consumed. `skip_costs`: nats for each word.
    Time and memory: frames x states, one numpy step a frame.
    """
    if not words or not len(log_probabilities):
        return Skipped([None] * len(words), len(words))
    chain = _Chain(words, blank)
    frames, count = len(log_probabilities), len(words)
    best = log_probabilities.max(axis=1)
    skip_offsets = np.cumsum([0.0, *(skip_costs or [SKIP_COST] * count)]).astype(np.float32)
    boundaries, states = np.arange(count + 1), np.arange(len(chain.labels))

    def entries(score: FloatArray) -> tuple[FloatArray, IntArray]:
        """Best score at each word boundary, skips included, and the state it came from."""
        blank_score, wild_score = score[chain.gaps], score[chain.wildcards]
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
        leap = leaps - LEAP_COST > best_here
        return np.where(leap, leaps - LEAP_COST, best_here), source[np.where(leap, leap_origin, origin)]

    def emissions(frame: int) -> FloatArray:
        scores = np.where(chain.wildcard, best[frame] - WILDCARD_COST, log_probabilities[frame, chain.emitted])
        return scores.astype(np.float32, copy=False)

    came_from = np.zeros((frames, len(states)), dtype=np.int32)
    score = np.full(len(states), _NEVER, dtype=np.float32)
    opening = np.maximum(-skip_offsets, np.where(boundaries > 0, -LEAP_COST, 0)).astype(np.float32)
    score[chain.gaps] = score[chain.wildcards] = opening
    score[chain.firsts] = opening[:-1]
    score += emissions(0)
    for frame in range(1, frames):
        stand, stand_from = entries(score)
        new, origin = score.copy(), states.copy()
        for allowed, step in ((chain.advance, 1), (chain.hop, 2)):
            shifted = np.concatenate([np.full(step, _NEVER, dtype=np.float32), score[:-step]])
            better = allowed & (shifted > new)
            new[better], origin[better] = shifted[better], states[better] - step
        for targets, value, source in (
            (chain.gaps, stand, stand_from),
            (chain.wildcards, stand, stand_from),
            (chain.firsts, stand[:-1], stand_from[:-1]),
        ):
            better = value > new[targets]
            new[targets[better]], origin[targets[better]] = value[better], source[better]
        new += emissions(frame)
        score = new
        came_from[frame] = origin
    stand, stand_from = entries(score)
    reached = count
    if exits is not None:
        allowed_ends = np.array(sorted({0, count, *exits}))
        reached = int(allowed_ends[np.argmax(stand[allowed_ends])])
    path = np.empty(frames, dtype=np.int64)
    state = int(stand_from[reached])
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state = int(came_from[frame, state])
    return Skipped(_detections(chain, path, log_probabilities, best, words), reached)


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
