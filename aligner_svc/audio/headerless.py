"""Decoding samples without a header, in the decoder child."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from aligner_svc.audio.encoding import Encoding
from aligner_svc.audio.mixdown import Mixdown
from aligner_svc.audio.source import Watch
from aligner_svc.audio.undecodable import UndecodableError, check_shape

_BLOCK: Final = 1 << 16
"""Sample frames converted at a time, so that float copies stay small compared with the input."""


def decode_headerless(
    data: memoryview,
    encoding: Encoding,
    rate: int,
    channels: int,
    max_seconds: float,
    *,
    channel: int | None = None,
    watch: Watch | None = None,
) -> tuple[npt.NDArray[np.int16], float]:
    """`data` at `rate` Hz with interleaved `channels`, as int16 of shape [n], 16 kHz mono, and its peak.

    `channel`: the one to take, from 0; None: all are mixed. Bytes after the last whole sample frame are dropped: a sender
    that cuts its stream anywhere loses less than a sample. Raises UndecodableError: AUDIO_EMPTY, and those of `Mixdown`.
    """
    check_shape(channels, rate)
    width = encoding.sample_bytes * channels
    mixdown = Mixdown(max_seconds, channel)
    for start in range(0, len(data) // width * width, _BLOCK * width):
        if watch:
            watch.progress()
        block = data[start : start + _BLOCK * width]
        mixdown.add(_to_float(block[: len(block) // width * width], encoding).reshape(-1, channels), rate)
    if watch:
        watch.rest()
    samples = mixdown.finish()
    if not len(samples):
        raise UndecodableError("AUDIO_EMPTY")
    return samples, mixdown.peak


def _to_float(data: memoryview, encoding: Encoding) -> npt.NDArray[np.float32]:
    if encoding is Encoding.FLOAT32:
        return np.frombuffer(data, "<f4").astype(np.float32)
    if encoding is Encoding.LINEAR16:
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
    return MULAW[np.frombuffer(data, np.uint8)]


def _mulaw_table() -> npt.NDArray[np.float32]:
    """ITU-T G.711: inverted bits of sign, 3 of exponent, 4 of mantissa; the 14-bit value times 4 is on int16's scale."""
    code = ~np.arange(256, dtype=np.uint8)
    mantissa, exponent = (code & 15).astype(np.int32), (code >> 4 & 7).astype(np.int32)
    magnitude = (((mantissa << 3) + 0x84) << exponent) - 0x84
    return (np.where(code & 0x80, -magnitude, magnitude) / 32768).astype(np.float32)


MULAW: Final = _mulaw_table()
