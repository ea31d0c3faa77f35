"""Moves the edges of words beside pauses to where the speech ends and begins again, and closes gaps that are no pauses.

A sound that the English model does not know well is cut short, or stretched into the pause that follows. Between words there is
nothing to see in the level of the audio, but a pause is plain in a clean recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from aligner_svc.engines.loudness import FRAME_RATE
from aligner_svc.engines.pocketsphinx.boundaries import Refined

_PAUSE, _OUTER_PAUSE = 0.15, 0.3
"""Seconds of quiet between words, and at the ends of the audio: shorter ones are stops, or sounds that fade."""
_REACH, _REACH_BACK = 0.25, 0.1
"""Seconds by which a word's end and its start are moved outwards at most: more is other speech, or breath before it."""
_GAP = 0.06
"""Seconds between two words below which the first is made to last until the second: a sound fades there, or a stop is held.
TIMIT's words through IPA come 0.2 ms closer to their marks, joins of phrases without their pauses 7 ms."""
_LEAST = 0.03
"""Seconds that are left of a word."""


def at_pauses(words: Sequence[Refined], speech: npt.NDArray[np.bool_]) -> list[Refined]:
    """`words` in order with their edges moved; `speech`: whether each frame (FRAME_RATE) is loud."""
    moved = list(words)
    for begin, end in _pauses(speech):
        for index, word in enumerate(moved):
            if word.end <= begin or word.start >= end:
                continue
            if word.start < begin and word.end > end:  # across the pause: keep the longer part
                moved[index] = replace(word, end=begin) if begin - word.start >= word.end - end else replace(word, start=end)
            elif word.start < begin:
                moved[index] = replace(word, end=max(begin, word.start + _LEAST))
            elif word.end > end:
                moved[index] = replace(word, start=min(end, word.end - _LEAST))
        before = max((index for index, word in enumerate(moved) if word.end <= begin), default=None)
        if before is not None and begin - moved[before].end <= _REACH and _free(moved, before + 1, begin):
            moved[before] = replace(moved[before], end=begin)
        after = min((index for index, word in enumerate(moved) if word.start >= end), default=None)
        if after is not None and moved[after].start - end <= _REACH_BACK and (after == 0 or moved[after - 1].end <= end):
            moved[after] = replace(moved[after], start=end)
    return moved


def without_gaps(words: Sequence[Refined]) -> list[Refined]:
    """`words` in order, the end of each at the start of the next where that is close."""
    moved = list(words)
    for index, (word, after) in enumerate(pairwise(words)):
        if word.end < after.start < word.end + _GAP:
            moved[index] = replace(word, end=after.start)
    return moved


def _free(words: Sequence[Refined], index: int, time: float) -> bool:
    return index >= len(words) or words[index].start >= time


def _pauses(speech: npt.NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Quiet stretches between loud ones, and at both ends; seconds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ~speech, [False]]).astype(np.int8)))
    return [
        (first / FRAME_RATE, last / FRAME_RATE)
        for first, last in edges.reshape(-1, 2).tolist()
        if last - first >= (_PAUSE if first > 0 and last < len(speech) else _OUTER_PAUSE) * FRAME_RATE
    ]
