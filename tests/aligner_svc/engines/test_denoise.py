"""Noise is removed; speech-like sound and the length of the clip stay."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.engines.denoise import denoise


def level(samples: npt.NDArray[np.int16]) -> float:
    """Mean power in dB."""
    return float(10 * np.log10((samples.astype(np.float64) ** 2).mean() + 1e-9))


def noise(seconds: float, deviation: float) -> npt.NDArray[np.float64]:
    return np.random.default_rng(7).normal(0, deviation, int(seconds * SAMPLE_RATE))


def pcm(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.int16]:
    return np.clip(np.rint(signal), -32768, 32767).astype(np.int16)


def bursts(seconds: float) -> npt.NDArray[np.float64]:
    """Harmonics of 150 Hz, a quarter of a second on and a quarter off."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tone = sum(np.sin(2 * np.pi * 150 * k * t + k) / k for k in range(1, 15))
    return 4000 * np.asarray(tone) * (t % 0.5 < 0.25)


def test_the_pauses_become_quiet_and_the_sound_stays() -> None:
    noisy = pcm(bursts(4) + noise(4, 600))
    clean = denoise(noisy)
    t = np.arange(len(noisy)) / SAMPLE_RATE % 0.5
    sound, pause = (t > 0.05) & (t < 0.2), (t > 0.3) & (t < 0.45)
    assert level(clean[pause]) < level(noisy[pause]) - 8
    assert abs(level(clean[sound]) - level(noisy[sound])) < 2


def test_sound_is_not_shifted() -> None:
    signal = np.zeros(2 * SAMPLE_RATE)
    signal[SAMPLE_RATE : SAMPLE_RATE + 1600] = bursts(0.1)
    clean = denoise(pcm(signal + noise(2, 50)))
    loud = np.flatnonzero(np.abs(clean.astype(int)) > 1500)
    assert abs(int(loud[0]) - SAMPLE_RATE) < 160
    assert abs(int(loud[-1]) - SAMPLE_RATE - 1600) < 160


@pytest.mark.parametrize("length", [0, 1, 100, 127, 128, 129, 511, 512, 513, 8000, 16_001])
def test_length_and_type_are_kept(length: int) -> None:
    clean = denoise(pcm(noise(2, 1000))[:length])
    assert clean.shape == (length,)
    assert clean.dtype == np.int16


def test_silence_stays_silence() -> None:
    assert not denoise(np.zeros(SAMPLE_RATE, np.int16)).any()


def test_full_scale_does_not_wrap_around() -> None:
    loud = pcm(20 * bursts(2))
    clean = denoise(loud)
    assert np.corrcoef(clean.astype(float), loud.astype(float))[0, 1] > 0.95


def test_the_input_is_not_changed() -> None:
    samples = pcm(noise(1, 1000))
    before = samples.copy()
    denoise(samples)
    assert (samples == before).all()
