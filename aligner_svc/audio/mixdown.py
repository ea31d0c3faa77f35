"""Converts samples of any rate and channel count to one 16 kHz mono int16 array, in one pass and bounded memory."""

from __future__ import annotations

import math
from typing import Final

import av
import numpy as np
import numpy.typing as npt

from aligner_svc.audio.undecodable import UndecodableError, check_shape
from aligner_svc.domain import SAMPLE_RATE

_BATCH: Final = 1 << 15
"""Samples mixed and resampled at a time: frames of 1024 one by one take twice the time."""


class Mixdown:
    """Collects audio: `add` and `silence` in chronological order, then `finish`.

    Raises UndecodableError: AUDIO_NOT_FINITE, AUDIO_TOO_LONG, CHANNELS_OUT_OF_RANGE, SAMPLE_RATE_OUT_OF_RANGE.
    """

    def __init__(self, max_seconds: float) -> None:
        self.max_peak = math.inf
        """Loudest peak (1.0 is full scale) for which all of the audio is scaled down; anything louder is clipped."""
        # Address space for the longest clip. The kernel provides memory only for what is written, and silence is not:
        # a file of a few kB that decodes to hours of it takes none.
        self._samples = np.zeros(int(max_seconds * SAMPLE_RATE), np.int16)
        self._length = 0
        self._scale = 1.0
        self._scaled: list[tuple[int, int, float]] = []  # (start and end of a run of samples, its divisor)
        self._rate = 0
        self._pending: list[npt.NDArray[np.float32]] = []
        self._pending_length = 0
        self._resampler: av.AudioResampler | None = None

    def add(self, samples: npt.NDArray[np.float32], rate: int) -> None:
        """Append the mean of the channels of `samples`, of shape [n, channels] at `rate` Hz."""
        check_shape(samples.shape[1], rate)
        if rate != self._rate:  # chained Ogg streams, and AAC that turns out to be HE-AAC, change it midway
            self._drain()
            self._rate = rate
        self._pending.append(samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32))
        self._pending_length += len(samples)
        if self._pending_length >= _BATCH:
            self._mix()

    def silence(self, seconds: float) -> None:
        """Append silence in place of missing audio, so that what follows keeps its time."""
        self._drain()
        count = round(seconds * SAMPLE_RATE)
        self._make_room(count)
        self._length += count

    def finish(self) -> npt.NDArray[np.int16]:
        """All of the audio: int16 of shape [n], 16 kHz, scaled to its peak if that is above full scale."""
        self._drain()
        for start, end, scale in self._scaled:
            if scale < self._scale:
                part = self._samples[start:end]
                np.rint(part * (scale / self._scale), out=part, casting="unsafe")
        return self._samples[: self._length]

    def _drain(self) -> None:
        """Mix what is pending and flush the resampler."""
        self._mix()
        if self._resampler:
            self._resample(None)
            self._resampler = None

    def _mix(self) -> None:
        if not self._pending:
            return
        mono = np.concatenate(self._pending)
        self._pending, self._pending_length = [], 0
        if not np.isfinite(mono).all():
            raise UndecodableError("AUDIO_NOT_FINITE")
        if self._rate == SAMPLE_RATE:
            self._store(mono)
            return
        frame = av.AudioFrame.from_ndarray(mono[np.newaxis], format="flt", layout="mono")
        frame.sample_rate = self._rate
        self._resampler = self._resampler or av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        self._resample(frame)

    def _resample(self, frame: av.AudioFrame | None) -> None:
        assert self._resampler
        for out in self._resampler.resample(frame):
            self._store(np.frombuffer(bytes(out.planes[0]), np.float32, out.samples))

    def _store(self, mono: npt.NDArray[np.float32]) -> None:
        """Quantise with the peak so far; `finish` rescales the runs before a louder one.

        Decoding twice, to know the peak in advance, would double the work for one int16 step of accuracy.
        """
        if not len(mono):
            return
        self._make_room(len(mono))
        peak = float(np.abs(mono).max())
        if not math.isfinite(peak):  # the resampler's input was finite, its sums were not
            raise UndecodableError("AUDIO_NOT_FINITE")
        if peak:
            self._scale = max(self._scale, min(peak, self.max_peak))
            quantised = np.clip(np.rint(mono * np.float32(32768 / self._scale)), -32768, 32767)
            self._samples[self._length : self._length + len(mono)] = quantised
            self._scaled.append((self._length, self._length + len(mono), self._scale))
        self._length += len(mono)

    def _make_room(self, count: int) -> None:
        if self._length + count > len(self._samples):
            raise UndecodableError("AUDIO_TOO_LONG")
