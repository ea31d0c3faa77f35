"""The level of a recording: quantises it to 16 bits without losing quiet speech, before it is known how loud it will be.

Decoding twice, to know the level in advance, would double the work, and float samples would double the memory. So runs of 20 ms
are quantised, each to a power of two of its own while the recording is quiet so far, and brought to one level at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from aligner_svc.audio.undecodable import UndecodableError
from aligner_svc.domain import SAMPLE_RATE

_RUN: Final = SAMPLE_RATE // 50
"""Samples of a run: two periods of the lowest voice."""

_BLOCK: Final = 10 * _RUN
"""Samples of a recording that is still coming whose level is judged together."""

_SUSTAINED: Final = 3
"""Runs that a level must last to count as one. Every vowel does, a click or a broken sample does not."""

_SPIKE: Final = 4.0
"""How far above the sustained level (ratio, 12 dB) a peak is believed: beyond it is clipped, if anything is to be scaled."""

_QUIET: Final = 0.01
"""Peak (1.0 is full scale, so -40 dBFS) below which a recording is made louder: speech at -60 dBFS has five bits of 16, and
quantising to them loses words."""

_TARGET: Final = 0.25
"""Peak to which a quiet recording is scaled."""

SILENT: Final = 3e-6
"""Peak (-110 dBFS) below which there is no recording: what lossy codecs make of silence, a quarter of a 20-bit step."""


class Quantiser:
    """`store` for each piece of a recording in order, then `apply`. Memory: 4 bytes for each 20 ms."""

    def __init__(self) -> None:
        self._peaks: list[npt.NDArray[np.float32]] = []
        self._places: list[tuple[int, int, npt.NDArray[np.float32] | None]] = []  # start, end, scale of each run (None: 1)
        self._loud = False

    def store(self, mono: npt.NDArray[np.float32], samples: npt.NDArray[np.int16], at: int, max_peak: float) -> None:
        """Quantise `mono`, clipped to `max_peak`, into `samples` from `at`. Raises UndecodableError (AUDIO_NOT_FINITE)."""
        peaks = np.maximum.reduceat(np.abs(mono), np.arange(0, len(mono), _RUN))
        top = float(peaks.max())
        if not math.isfinite(top):  # the resampler's input was finite, its sums were not
            raise UndecodableError("AUDIO_NOT_FINITE")
        if not top:
            return  # nothing is written, so that silence takes no memory
        if top > max_peak:
            mono, peaks = np.clip(mono, -max_peak, max_peak), np.minimum(peaks, np.float32(max_peak))
        self._peaks.append(peaks)
        self._loud = self._loud or _sustained(peaks) >= _QUIET
        scales = None if self._loud and top <= 1 else self._scales(peaks)
        self._places.append((at, at + len(mono), scales))
        factors = np.float32(32768) if scales is None else np.repeat(32768 / scales, _RUN)[: len(mono)]
        # Full scale, 1.0, is one more than int16 holds; so is what is rounded up to it.
        samples[at : at + len(mono)] = np.clip(np.rint(mono * factors), -32768, 32767)

    @property
    def peak(self) -> float:
        """The peak of what was stored (1.0 is full scale), but for what lasts less than 60 ms and is 12 dB above the rest."""
        if not self._peaks:
            return 0.0
        peaks = np.concatenate(self._peaks)
        return min(float(peaks.max()), _SPIKE * _sustained(peaks))

    def apply(self, samples: npt.NDArray[np.int16]) -> None:
        """Bring all that was stored to one level: scaled down to its `peak` if that is above full scale, up if it is quiet.

        So one spike of a broken sample neither silences the rest nor hides that it is quiet.
        """
        gain = np.float32(self._gain())
        for start, end, scales in self._places:
            if scales is None and gain == 1:
                continue
            factors = gain if scales is None else np.repeat(scales * gain, _RUN)[: end - start]
            part = samples[start:end]
            part[:] = np.clip(np.rint(part * factors), -32768, 32767)

    def _scales(self, peaks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The power of two for each run that its peak just fits into; below full scale only while the recording is quiet."""
        mantissas, exponents = np.frexp(peaks)
        exponents = np.where(mantissas == 0.5, exponents - 1, exponents)
        scales: npt.NDArray[np.float32] = np.exp2(np.clip(exponents, 0 if self._loud else -40, None)).astype(np.float32)
        return scales

    def _gain(self) -> float:
        return _gain(self.peak)


class RunningLevel:
    """The level of a recording that is still coming, by the loudest so far: nothing of it is scaled a second time.

    It is judged in blocks that are counted from the first sample, so that it does not depend on the pieces that come.
    """

    def __init__(self) -> None:
        self._top = self._held = 0.0
        self._recent: npt.NDArray[np.float32] = np.zeros(0, np.float32)
        self._odd: npt.NDArray[np.float32] = np.zeros(0, np.float32)

    @property
    def peak(self) -> float:
        """As in Quantiser."""
        return min(self._top, _SPIKE * self._held)

    def add(self, mono: npt.NDArray[np.float32], *, last: bool = False) -> Iterator[tuple[npt.NDArray[np.float32], float]]:
        """The next samples, but for those of a block that is not full, with the factor for all that was heard up to their end.

        `last`: nothing follows, all are returned.
        """
        mono = np.concatenate([self._odd, mono])
        whole = len(mono) if last else len(mono) // _BLOCK * _BLOCK
        self._odd = mono[whole:]
        begin, gain = 0, 1.0
        for at in range(0, whole, _BLOCK):
            before, gain = gain, self._hear(mono[at : min(at + _BLOCK, whole)])
            if gain != before and at > begin:
                yield mono[begin:at], before
                begin = at
        if whole > begin:
            yield mono[begin:whole], gain

    def _hear(self, block: npt.NDArray[np.float32]) -> float:
        peaks = np.maximum.reduceat(np.abs(block), np.arange(0, len(block), _RUN))
        self._top = max(self._top, float(peaks.max()))
        recent = np.concatenate([self._recent, peaks])
        self._held = max(self._held, _sustained(recent))
        self._recent = recent[1 - _SUSTAINED :]
        return _gain(self.peak)


def _gain(peak: float) -> float:
    if peak > 1:
        return 1 / peak
    return _TARGET / peak if SILENT <= peak < _QUIET else 1.0


def _sustained(peaks: npt.NDArray[np.float32]) -> float:
    """The highest level that lasts for _SUSTAINED runs; of less audio the highest."""
    if len(peaks) < _SUSTAINED:
        return float(peaks.max())
    return float(np.lib.stride_tricks.sliding_window_view(peaks, _SUSTAINED).min(axis=1).max())
