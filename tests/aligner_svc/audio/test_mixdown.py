"""Channels that cancel each other out, quiet recordings and broken samples leave the speech as it was."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from aligner_svc.audio.mixdown import Mixdown
from tests.aligner_svc.audio.test_decode import Signal, bursts

SPEECH = bursts(16000, 4.0)
NOISE = np.random.default_rng(5).standard_normal(len(SPEECH)).astype(np.float32)


def mixed(*channels: Signal, rate: int = 16000) -> npt.NDArray[np.int16]:
    mixdown = Mixdown(10.0)
    samples = np.stack(channels, axis=1).astype(np.float32)
    for start in range(0, len(samples), 1000):  # as frames of a codec come
        mixdown.add(samples[start : start + 1000], rate)
    return mixdown.finish()


def likeness(samples: npt.NDArray[np.int16], reference: Signal = SPEECH) -> float:
    a, b = reference.astype(float), samples.astype(float)
    return float(abs(a @ b) / np.sqrt((a @ a) * (b @ b)))


class TestChannels:
    @pytest.mark.parametrize("ratio", [1.0, 0.8, 0.6])
    def test_opposite_phase_does_not_cancel(self, ratio: float) -> None:
        assert likeness(mixed(SPEECH, np.float32(-ratio) * SPEECH)) > 0.999

    def test_noise_common_to_both_does_not_remain_alone(self) -> None:
        noise = NOISE * np.float32(0.02)
        assert likeness(mixed(SPEECH + noise, noise - SPEECH)) > 0.9

    def test_six_channels_with_a_pair_that_cancels(self) -> None:
        nothing = np.zeros_like(SPEECH)
        assert likeness(mixed(SPEECH, -SPEECH, nothing, nothing, nothing, nothing)) > 0.999

    def test_a_recording_that_turns_over_midway(self) -> None:
        half = len(SPEECH) // 2
        other = np.concatenate([SPEECH[:half], -SPEECH[half:]])
        halves = mixed(SPEECH, other)
        assert likeness(halves[:half], SPEECH[:half]) > 0.99
        assert likeness(halves[half:], SPEECH[half:]) > 0.95  # 4,000 samples of it are in a block with the end of the first half

    @pytest.mark.parametrize("others", [1, 7])
    def test_one_channel_of_several_is_averaged_with_the_silent_ones(self, others: int) -> None:
        samples = mixed(SPEECH, *[np.zeros_like(SPEECH)] * others)
        assert np.abs(samples - SPEECH * 32768 / (others + 1)).max() <= 1

    def test_different_speakers_are_averaged(self) -> None:
        other = SPEECH[::-1]
        assert np.abs(mixed(SPEECH, other) - (SPEECH + other) * 16384).max() <= 1


class TestLevel:
    @pytest.mark.parametrize("dbfs", [-45, -70, -90, -105])
    @pytest.mark.parametrize("rate", [16000, 44100])
    def test_quiet_speech_keeps_its_bits(self, dbfs: int, rate: int) -> None:
        signal = bursts(rate, 4.0)
        quiet = mixed(signal * np.float32(10 ** (dbfs / 20)), rate=rate)
        assert 0.2 < np.abs(quiet.astype(int)).max() / 32768 <= 0.4
        assert likeness(quiet, mixed(signal, rate=rate).astype(np.float32)) > 0.9999

    def test_what_is_not_quiet_is_left_as_it_is(self) -> None:
        signal = np.concatenate([SPEECH * np.float32(1e-4), SPEECH * np.float32(0.02)])
        assert np.abs(mixed(signal) - signal * 32768).max() <= 0.51

    @pytest.mark.parametrize("spike", [10.0, 1e3, 1e30])
    @pytest.mark.parametrize("rate", [16000, 44100])
    def test_a_spike_costs_its_own_20_ms(self, spike: float, rate: int) -> None:
        signal = bursts(rate, 4.0)
        broken = signal.copy()
        broken[rate] = spike
        expected, samples = mixed(signal, rate=rate).astype(float), mixed(broken, rate=rate).astype(float)
        kept = np.r_[0 : 16000 - 400, 16000 + 400 : len(expected)]
        scale = (samples[kept] @ expected[kept]) / (expected[kept] @ expected[kept])
        assert 0.3 < scale <= 1
        assert np.abs(samples[kept] - scale * expected[kept]).max() <= 2

    def test_a_click_does_not_hide_that_the_rest_is_quiet(self) -> None:
        signal = SPEECH * np.float32(1e-4)
        signal[20000] = 1.0
        samples = mixed(signal)
        samples[20000 - 320 : 20000 + 320] = 0
        assert np.abs(samples.astype(int)).max() > 1000
        assert likeness(samples) > 0.99

    def test_silence_stays_silence(self) -> None:
        assert not mixed(NOISE * np.float32(1e-7)).any()
