"""bench/conditions.py: what the bench adds to recordings."""

from __future__ import annotations

import numpy as np
import pytest

from bench import conditions
from bench.gold import RATE, Samples


@pytest.fixture(scope="module")
def speech() -> Samples:
    """Two seconds of silence with a burst of noise in the middle."""
    samples = np.zeros(2 * RATE, dtype=np.int16)
    samples[RATE : RATE + 1600] = np.random.default_rng(1).integers(-8000, 8000, 1600)
    return samples


@pytest.mark.parametrize("kind", conditions.NOISES)
def test_noise_has_the_ratio_asked_for_and_is_the_same_for_the_same_seed(speech: Samples, kind: str) -> None:
    first, again, other = (conditions.noise(kind, len(speech), seed, [speech[RATE:]]) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    added = conditions.with_noise(speech, first, 10.0).astype(float) - speech
    assert 10 * np.log10((speech.astype(float) ** 2).mean() / (added**2).mean()) == pytest.approx(10.0, abs=0.1)


def test_a_room_smears_sounds_but_does_not_delay_them(speech: Samples) -> None:
    heard = conditions.with_room(speech, 5).astype(float)
    assert not heard[:RATE].any()
    assert abs(heard[RATE : RATE + 20]).max() > 500
    power = np.array([(heard[RATE + 1600 + n : RATE + 1600 + n + 800] ** 2).mean() for n in (0, 3200)])
    assert 10 * np.log10(power[0] / power[1]) == pytest.approx(60 * 0.2 / conditions.T60, abs=5.0)
