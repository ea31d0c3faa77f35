"""Converts samples of any rate and channel count to one 16 kHz mono int16 array, in one pass and bounded memory."""

from __future__ import annotations

import math
from typing import Final

import av
import numpy as np
import numpy.typing as npt

from aligner_svc.audio.level import Quantiser
from aligner_svc.audio.undecodable import UndecodableError, check_shape
from aligner_svc.domain import SAMPLE_RATE

_BATCH: Final = 1 << 15
"""Samples mixed and resampled at a time: frames of 1024 one by one take twice the time."""

_BLOCK: Final = 1 << 12
"""Samples of each channel that are judged together: a tenth to a quarter of a second."""

_CANCELLED: Final = 0.3
"""Power of the mean of the channels, relative to that of unrelated channels of the same power, below which they cancel each other
out: two channels whose correlation is below -0.7. Unrelated ones have 1, one channel of eight has 1, opposite phase 0."""

_OTHER_CHANNEL: Final = 4.0
"""How much more power (ratio) another channel must have to replace the one in use: each change may turn the phase."""


class Downmix:
    """Mixes channels to one, a block after another; or takes one of them, `only`, and nothing of the others."""

    def __init__(self, channels: int, only: int | None = None) -> None:
        """Raises UndecodableError (CHANNEL_UNKNOWN)."""
        if only is not None and only >= channels:
            raise UndecodableError("CHANNEL_UNKNOWN", channels)
        self._channels = channels
        self._only = only
        self._used = 0

    def mono(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The mean of the channels, or one of them where they cancel each other out: a wire of a microphone that is reversed.

        Decided anew for each block. Not by the difference of the channels, which would remove a voice that
        is the same on both and lose it to a louder noise of opposite phase.
        """
        channels = self._channels
        if channels == 1:
            return samples[:, 0]
        if self._only is not None:
            return np.ascontiguousarray(samples[:, self._only])
        mean = samples[:, 0] + samples[:, 1]
        for channel in range(2, channels):
            mean += samples[:, channel]
        mean *= np.float32(1 / channels)
        for start in range(0, len(mean), _BLOCK):
            block, part = samples[start : start + _BLOCK], mean[start : start + _BLOCK]
            powers = np.einsum("nc,nc->c", block, block)
            if np.dot(part, part) < _CANCELLED * powers.sum() / channels**2:
                if powers[self._used] * _OTHER_CHANNEL < powers.max():
                    self._used = int(powers.argmax())
                part[:] = block[:, self._used]
        return mean


class Mixdown:
    """Collects audio: `add` and `silence` in chronological order, then `finish`.

    Raises UndecodableError: AUDIO_NOT_FINITE, AUDIO_TOO_LONG, CHANNEL_UNKNOWN, CHANNELS_OUT_OF_RANGE, SAMPLE_RATE_OUT_OF_RANGE.
    """

    def __init__(self, max_seconds: float, channel: int | None = None) -> None:
        """`channel`: the one to take, from 0; None: all are mixed."""
        self.max_peak = math.inf
        """Loudest peak (1.0 is full scale) that is believed; anything louder is clipped."""
        # Address space for the longest clip. The kernel provides memory only for what is written, and silence is not:
        # a file of a few kB that decodes to hours of it takes none.
        self._samples = np.zeros(int(max_seconds * SAMPLE_RATE), np.int16)
        self._length = 0
        self._level = Quantiser()
        self._shape = (0, 0)  # rate and channels of what is pending
        self._pending: list[npt.NDArray[np.float32]] = []
        self._pending_length = 0
        self._resampler: av.AudioResampler | None = None
        self._channel = channel
        self._downmix = Downmix(1)

    def add(self, samples: npt.NDArray[np.float32], rate: int) -> None:
        """Append what `Downmix` makes of `samples`, of shape [n, channels] at `rate` Hz."""
        shape = (rate, samples.shape[1])
        if shape != self._shape:  # chained Ogg streams, and AAC that turns out to be HE-AAC, change it midway
            check_shape(samples.shape[1], rate)
            self._drain()
            self._shape, self._downmix = shape, Downmix(samples.shape[1], self._channel)
        self._pending.append(samples)
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
        """All of the audio: int16 of shape [n], 16 kHz, at a level as `Quantiser.apply` says."""
        self._drain()
        self._level.apply(self._samples)
        return self._samples[: self._length]

    @property
    def peak(self) -> float:
        """`Quantiser.peak` of all so far."""
        return self._level.peak

    def _drain(self) -> None:
        """Mix what is pending and flush the resampler."""
        self._mix()
        if self._resampler:
            self._resample(None)
            self._resampler = None

    def _mix(self) -> None:
        if not self._pending:
            return
        mono = self._downmix.mono(np.concatenate(self._pending))
        self._pending, self._pending_length = [], 0
        if not np.isfinite(mono).all():
            raise UndecodableError("AUDIO_NOT_FINITE")
        rate, _ = self._shape
        if rate == SAMPLE_RATE:
            self._store(mono)
            return
        frame = av.AudioFrame.from_ndarray(mono[np.newaxis], format="flt", layout="mono")
        frame.sample_rate = rate
        self._resampler = self._resampler or av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        self._resample(frame)

    def _resample(self, frame: av.AudioFrame | None) -> None:
        assert self._resampler
        for out in self._resampler.resample(frame):
            self._store(np.frombuffer(bytes(out.planes[0]), np.float32, out.samples))

    def _store(self, mono: npt.NDArray[np.float32]) -> None:
        if not len(mono):
            return
        self._make_room(len(mono))
        self._level.store(mono, self._samples, self._length, self.max_peak)
        self._length += len(mono)

    def _make_room(self, count: int) -> None:
        if self._length + count > len(self._samples):
            raise UndecodableError("AUDIO_TOO_LONG")
