"""Where a recording is loud without words, on made-up signals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from aligner_svc.domain import SAMPLE_RATE, Stretch
from aligner_svc.engines.loudness import Samples, levels, limits, loud, unaligned

BURSTS = [(1.0, 2.0), (3.0, 3.8), (5.0, 5.1), (7.0, 9.0)]
"""Seconds of sound in ten seconds of quiet; the third is as short as a click."""


def clip(bursts: Sequence[tuple[float, float]], seconds: float = 10.0, level: float = 3000, background: float = 10) -> Samples:
    noise = np.random.default_rng(1)
    samples = noise.normal(0, background, int(seconds * SAMPLE_RATE))
    for start, end in bursts:
        samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)] += noise.normal(
            0, level, int(end * SAMPLE_RATE) - int(start * SAMPLE_RATE)
        )
    return samples.astype(np.int16)


def times(stretches: Sequence[Stretch]) -> list[tuple[float, float]]:
    return [(round(at.start, 1), round(at.end, 1)) for at in stretches]


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ([], [(1.0, 2.0), (3.0, 3.8), (7.0, 9.0)]),
        ([(1.0, 1.5), (1.5, 2.0), (3.05, 3.7), (7.0, 9.0)], []),
        ([(1.0, 2.0), (7.0, 8.0)], [(3.0, 3.8), (8.1, 9.0)]),
        ([(7.5, 8.5)], [(1.0, 2.0), (3.0, 3.8), (7.0, 7.4), (8.6, 9.0)]),
    ],
)
def test_loud_audio_without_words_is_reported(words: list[tuple[float, float]], left: list[tuple[float, float]]) -> None:
    assert times(unaligned(clip(BURSTS), [Stretch(*word) for word in words])) == left


def test_a_short_pause_does_not_part_a_stretch_but_a_word_does() -> None:
    samples = clip([(1.0, 2.0), (2.3, 3.0)])
    assert times(unaligned(samples, [])) == [(1.0, 3.0)]
    assert times(unaligned(samples, [Stretch(2.1, 2.15)])) == [(1.0, 2.0), (2.3, 3.0)]


@pytest.mark.parametrize("samples", [clip([], background=500), clip([], background=0), clip([(1, 2)], level=3, background=0)])
def test_even_noise_and_silence_are_not_loud(samples: Samples) -> None:
    assert unaligned(samples, []) == []


@pytest.mark.parametrize("count", [0, 1, 79, 80, 200])
def test_any_length(count: int) -> None:
    assert unaligned(np.full(count, 1000, np.int16), [Stretch(0.0, 1.0)]) == []


def test_one_word_in_a_minute_of_room_tone_sets_the_level_of_speech() -> None:
    energies = levels(clip([(30.0, 30.4)], seconds=60.0))
    background, speech = limits(energies)
    assert background < 25 < 60 < speech
    assert np.flatnonzero(loud(energies)).tolist() == list(range(6000, 6080))
