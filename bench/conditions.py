"""Recordings as they come from a room, or with something else in the background. The same seed makes the same samples.

Signals are 16 kHz mono int16; a signal-to-noise ratio is over the whole recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.gold import RATE, Samples

Signal = npt.NDArray[np.float64]

NOISES: Final = ("pink", "music", "babble")
T60: Final = 0.4  # seconds in which the sound of the room falls by 60 dB
DIRECT_TO_REVERBERANT_DB: Final = 0.0  # about 1.5 m from the microphone in a living room
_FIRST_REFLECTION = 0.003  # seconds after the direct sound
_TALKERS = 6
_SCALE = (0, 2, 4, 5, 7, 9, 11)  # semitones of the major scale


def with_room(audio: Samples, seed: int, t60: float = T60, ratio_db: float = DIRECT_TO_REVERBERANT_DB) -> Samples:
    """Convolved with a direct sound, at no delay, and a tail of decaying noise."""
    draw = np.random.default_rng(seed)
    at = np.arange(round(1.2 * t60 * RATE)) / RATE
    tail = draw.standard_normal(len(at)) * 10 ** (-3 * at / t60) * (at >= _FIRST_REFLECTION)
    response = tail * np.sqrt(10 ** (-ratio_db / 10) / (tail**2).sum())
    response[0] = 1.0
    size = len(audio) + len(response)
    wet = np.fft.irfft(np.fft.rfft(audio, size) * np.fft.rfft(response, size), size)[: len(audio)]
    return _int16(wet * _rms(audio) / max(_rms(wet), 1e-9))


def with_noise(audio: Samples, noise: Signal, snr_db: float) -> Samples:
    """`noise` is scaled, and as long as `audio`."""
    return _int16(audio + noise * (_rms(audio) / max(_rms(noise), 1e-9) * 10 ** (-snr_db / 20)))


def noise(kind: str, length: int, seed: int, others: Sequence[Samples]) -> Signal:
    """`length` samples of one of NOISES; babble is made of `others`."""
    draw = np.random.default_rng(seed)
    if kind == "babble":
        return babble(length, draw, others)
    return pink(length, draw) if kind == "pink" else music(length, draw)


def pink(length: int, draw: np.random.Generator) -> Signal:
    """Noise whose power falls by 3 dB an octave, from 50 Hz."""
    spectrum = np.fft.rfft(draw.standard_normal(length))
    hz = np.fft.rfftfreq(length, 1 / RATE)
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(hz, 50.0)), length)


def music(length: int, draw: np.random.Generator) -> Signal:
    """Chords of four notes with eight partials, a melody above them, and a drum on the beat."""
    out = np.zeros(length + 2 * RATE)
    beat = int(RATE * 60 / draw.uniform(90, 130))
    key = int(draw.integers(40, 52))  # MIDI number of the lowest note
    for index, begin in enumerate(range(0, length, beat)):
        if index % 4 == 0:
            root = int(draw.integers(0, 7))
            for step in (0, 2, 4, 7):
                _add(out, begin, _note(key + _pitch(root + step), 4 * beat, draw))
        _add(out, begin, 1.5 * _note(key + 12 + _pitch(int(draw.integers(0, 14))), beat, draw))
        _add(out, begin, 0.6 * draw.standard_normal(RATE // 10) * np.exp(-np.arange(RATE // 10) / (0.02 * RATE)))
    return out[:length]


def babble(length: int, draw: np.random.Generator, others: Sequence[Samples]) -> Signal:
    """Six talkers at once, each at the same level and without a pause between recordings."""
    out = np.zeros(length)
    for _ in range(_TALKERS):
        speech: list[Samples] = []
        while sum(map(len, speech)) < 2 * length:
            speech.append(others[int(draw.integers(len(others)))])
        said = np.concatenate(speech).astype(np.float64)
        begin = int(draw.integers(len(said) - length + 1))
        part = said[begin : begin + length]
        out += part / max(_rms(part), 1e-9)
    return out


def _pitch(degree: int) -> int:
    return 12 * (degree // 7) + _SCALE[degree % 7]


def _note(midi: int, length: int, draw: np.random.Generator) -> Signal:
    at = np.arange(length) / RATE
    partials = np.arange(1, 9)[:, None]
    phases = draw.uniform(0, 2 * np.pi, (8, 1))
    waves = np.sin(2 * np.pi * 440 * 2 ** ((midi - 69) / 12) * partials * at + phases) / partials
    return waves.sum(axis=0) * np.minimum(at / 0.01, 1) * np.exp(-2 * at)


def _add(out: Signal, begin: int, part: Signal) -> None:
    end = min(len(out), begin + len(part))
    out[begin:end] += part[: end - begin]


def _rms(signal: npt.NDArray[np.generic]) -> float:
    return float(np.sqrt((signal.astype(np.float64) ** 2).mean()))


def _int16(signal: Signal) -> Samples:
    return np.clip(np.rint(signal), -32768, 32767).astype(np.int16)
