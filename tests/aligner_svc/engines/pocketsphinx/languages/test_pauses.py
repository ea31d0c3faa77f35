"""Edges of words beside pauses are where the speech ends and begins."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from aligner_svc.engines.loudness import FRAME_RATE
from aligner_svc.engines.pocketsphinx.boundaries import Refined
from aligner_svc.engines.pocketsphinx.languages.pauses import at_pauses, without_gaps


def speech(*stretches: tuple[float, float], seconds: float = 4.0) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    frames = np.zeros(int(seconds * FRAME_RATE), dtype=bool)
    for start, end in stretches:
        frames[int(start * FRAME_RATE) : int(end * FRAME_RATE)] = True
    return frames


@pytest.mark.parametrize(
    ("words", "moved"),
    [
        ([(0.0, 0.9), (1.55, 2.0)], [(0.0, 1.0), (1.5, 2.0)]),  # a sound cut short at each side of the pause
        ([(0.0, 1.2), (1.4, 2.0)], [(0.0, 1.0), (1.5, 2.0)]),  # stretched into it
        ([(0.0, 0.9), (0.9, 1.8), (1.8, 2.0)], [(0.0, 1.0), (1.5, 1.8), (1.8, 2.0)]),  # across it: the longer part
        ([(0.0, 0.7), (1.7, 2.0)], [(0.0, 0.7), (1.7, 2.0)]),  # too far: there is speech that is not in the text
        ([(0.0, 0.5), (0.5, 1.0), (1.5, 2.0)], [(0.0, 0.5), (0.5, 1.0), (1.5, 2.0)]),
    ],
)
def test_edges_beside_a_pause(words: list[tuple[float, float]], moved: list[tuple[float, float]]) -> None:
    found = at_pauses([Refined(start, end, 0.01) for start, end in words], speech((0.0, 1.0), (1.5, 2.0), seconds=2.0))
    assert np.allclose([(word.start, word.end) for word in found], moved)


def test_a_word_lasts_until_the_next_one_unless_there_is_a_pause() -> None:
    words = [(0.0, 0.5), (0.55, 0.9), (0.9, 1.0), (1.1, 1.5)]
    found = without_gaps([Refined(start, end, 0.01) for start, end in words])
    assert [(word.start, word.end) for word in found] == [(0.0, 0.55), (0.55, 0.9), (0.9, 1.0), (1.1, 1.5)]


def test_words_stay_in_order_and_none_is_lost() -> None:
    random = np.random.default_rng(1)
    for _ in range(200):
        cuts = np.sort(random.uniform(0, 4, 12))
        words = [Refined(float(a), float(b), 0.01) for a, b in zip(cuts[::2], cuts[1::2], strict=True)]
        starts = np.sort(random.uniform(0, 4, 4))
        found = at_pauses(words, speech((starts[0], starts[1]), (starts[2], starts[3])))
        edges = [edge for word in found for edge in (word.start, word.end)]
        assert len(found) == len(words)
        assert all(later - earlier >= -1e-9 for earlier, later in pairwise(edges))
