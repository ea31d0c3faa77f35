"""The level of a recording that is still coming."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_svc.audio.level import RunningLevel
from tests.kit.recordings import samples

SPEECH = samples()[: 2 * 16_000].astype(np.float32) / 32768
RISING = np.concatenate([SPEECH / 3000, SPEECH / 1000, SPEECH, SPEECH * 4])


def heard(cuts=()) -> list[tuple[np.ndarray, float]]:
    level = RunningLevel()
    places = [0, *cuts, len(RISING)]
    pieces = [found for start, end in pairwise(places) for found in level.add(RISING[start:end])]
    return pieces + list(level.add(RISING[:0], last=True))


def gains(pieces) -> np.ndarray:
    """Of each sample."""
    return np.concatenate([np.full(len(part), gain) for part, gain in pieces])


def test_faint_audio_is_made_louder_and_what_is_above_full_scale_quieter_by_what_was_heard_so_far():
    quarters = gains(heard()).reshape(4, -1)
    assert quarters[0, 0] > quarters[1, -1] > 1
    assert quarters[2, -1] == 1
    assert quarters[3, -1] < 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, len(RISING)), max_size=40).map(sorted))
def test_the_level_does_not_depend_on_where_an_upload_is_cut(cuts):
    cut = heard(cuts)
    np.testing.assert_array_equal(np.concatenate([part for part, _ in cut]), RISING)
    np.testing.assert_array_equal(gains(cut), gains(heard()))
