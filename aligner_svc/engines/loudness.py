"""Which parts of a recording are loud: where speech may be.

Energies are in dB over one step of 16 bits (full scale: 90), 5 ms a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from aligner_svc.domain import SAMPLE_RATE, Stretch

FRAME_RATE: Final = 200
"""Frames a second."""
FRAME: Final = SAMPLE_RATE // FRAME_RATE
"""Samples of one."""
_CHUNK: Final = 60 * FRAME_RATE  # frames at a time: four hours of samples as float64 are 1.8 GB
_LOUDEST_FRAMES: Final = 30  # 0.15 s: the loudest frames, which are no measure of the level of speech
_NEAR_FRAMES: Final = 100  # 0.5 s around loud frames: where the level of the background is measured

_LEAST_RANGE_DB: Final = 6.0  # between background and speech; white noise alone has 2.5
LEAST_LEVEL_DB: Final = 20.0  # -70 dBFS, a muted microphone: what is quieter is no speech, and not reported as loud
_REACH: Final = 0.1  # seconds around a word that are taken for part of it: edges are not exact, and breath follows words
_JOINED: Final = 0.5  # seconds between two stretches that are reported as one
_LEAST_SECONDS: Final = 0.3  # of loud frames in a stretch: less is a click or a breath

Samples = npt.NDArray[np.int16]
Levels = npt.NDArray[np.float32]


def levels(samples: Samples) -> Levels:
    """Energy of every whole frame."""
    whole = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    energies = [(whole[at : at + _CHUNK].astype(np.float32) ** 2).mean(axis=1) for at in range(0, len(whole), _CHUNK)]
    return (10 * np.log10(np.concatenate(energies) + 1)).astype(np.float32) if energies else np.zeros(0, np.float32)


def limits(given: Levels) -> tuple[float, float]:
    """The 5th and the 95th percentile in and around the loud stretches: background and speech; (0, 0) without frames.

    Over all frames, one word in ten seconds of room tone is lost among the 5 % that are left out.
    """
    if not len(given):
        return 0.0, 0.0
    rank = max(0, len(given) - 1 - _LOUDEST_FRAMES)
    loud = np.flatnonzero(given > (np.partition(given, rank)[rank] + np.percentile(given, 5)) / 2)
    edges = np.zeros(len(given) + 1, dtype=np.int32)
    np.add.at(edges, np.maximum(loud - _NEAR_FRAMES, 0), 1)
    np.add.at(edges, np.minimum(loud + _NEAR_FRAMES + 1, len(given)), -1)
    near = given[np.cumsum(edges, dtype=np.int32)[:-1] > 0]
    background, speech = np.percentile(near if len(near) else given, [5, 95])
    return float(background), float(speech)


def is_still(background: float, speech: float) -> bool:
    """Whether the `limits` are those of silence, or of steady noise: there is certainly no speech."""
    return speech < LEAST_LEVEL_DB or speech - background < _LEAST_RANGE_DB


def loud(given: Levels) -> npt.NDArray[np.bool_]:
    """Which frames are closer to the level of the speech than to that of the background."""
    return given > sum(limits(given)) / 2


def unaligned(samples: Samples, words: Sequence[Stretch]) -> list[Stretch]:
    """Stretches of loud audio, speech or not, in which none of the `words` is; in order. An hour takes 0.5 s."""
    return unaligned_levels(levels(samples), words)


def unaligned_levels(energies: Levels, words: Sequence[Stretch]) -> list[Stretch]:
    """The same of the levels of all frames."""
    background, speech = limits(energies)
    if speech - background < _LEAST_RANGE_DB:
        return []
    open_frames = energies > max((background + speech) / 2, LEAST_LEVEL_DB)
    for word in words:
        open_frames[max(0, int((word.start - _REACH) * FRAME_RATE)) : int((word.end + _REACH) * FRAME_RATE)] = False
    frames = np.flatnonzero(open_frames)
    taken = np.zeros(len(energies), dtype=bool)
    for word in words:
        taken[int(word.start * FRAME_RATE) : int(word.end * FRAME_RATE)] = True
    words_before = np.concatenate([np.zeros(1, np.int32), np.cumsum(taken, dtype=np.int32)])
    apart = (np.diff(frames) > _JOINED * FRAME_RATE) | (np.diff(words_before[frames]) > 0)
    stretches = np.split(frames, np.flatnonzero(apart) + 1) if len(frames) else []
    return [
        Stretch(int(stretch[0]) / FRAME_RATE, (int(stretch[-1]) + 1) / FRAME_RATE)
        for stretch in stretches
        if len(stretch) >= _LEAST_SECONDS * FRAME_RATE
    ]
