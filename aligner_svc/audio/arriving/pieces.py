"""Decoding a recording piece by piece while it arrives, in the decoder child: bare samples, and those of a WAV.

A piece is decoded alone, with a little of what comes before and after it, so that no child holds anything between two pieces. The
pieces lie on a grid that is counted from the first sample, which makes the result independent of how the upload was cut.
"""

from __future__ import annotations

import struct
from typing import Final

import av
import numpy as np
import numpy.typing as npt

from aligner_svc.audio.arriving.forms import Form, WaveStart, grid
from aligner_svc.audio.headerless import MULAW
from aligner_svc.audio.mixdown import Downmix
from aligner_svc.audio.undecodable import UndecodableError, check_shape
from aligner_svc.domain import SAMPLE_RATE

_MAX_CHUNKS: Final = 1000
"""Chunks before the samples of a WAV that are looked through."""

_WAVE_FORMATS: Final = {
    (1, 8): "U8",
    (1, 16): "LINEAR16",
    (1, 24): "S24",
    (1, 32): "S32",
    (3, 32): "FLOAT32",
    (3, 64): "F64",
    (6, 8): "ALAW",
    (7, 8): "MULAW",
}
"""By format tag and bits."""
_EXTENSIBLE: Final = 0xFFFE


def decode_pieces(data: memoryview, form: Form, before: int, after: int) -> npt.NDArray[np.float32]:
    """The frames of `data` but `before` first and `after` last ones, which are context, at 16 kHz mono; 1.0 is full scale.

    The first that count begin a piece of the grid. Raises UndecodableError: AUDIO_NOT_FINITE, and those of `check_shape`.
    """
    check_shape(form.channels, form.rate)
    rate = form.rate
    samples = _to_float(data[: len(data) // form.frame * form.frame], form.kind).reshape(-1, form.channels)
    if not np.isfinite(samples).all():
        raise UndecodableError("AUDIO_NOT_FINITE")
    size = grid(rate)
    end = len(samples) - after
    pieces = []
    for start in range(before, end, size.piece):
        stop = min(start + size.piece, end)
        first = max(0, start - size.context)
        mono = Downmix(form.channels).mono(samples[first : stop + size.context])
        if rate == SAMPLE_RATE:
            pieces.append(mono[start - first : stop - first])
        else:
            count = size.out if stop - start == size.piece else -(-(stop - start) * SAMPLE_RATE // rate)
            begin = (start - first) * SAMPLE_RATE // rate
            pieces.append(_resampled(mono, rate)[begin : begin + count])
    return np.concatenate(pieces).astype(np.float32) if pieces else np.zeros(0, np.float32)


def _resampled(mono: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float32]:
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono)[np.newaxis], format="flt", layout="mono")
    frame.sample_rate = rate
    parts = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([np.frombuffer(bytes(part.planes[0]), np.float32, part.samples) for part in parts])


def wave_start(data: memoryview) -> WaveStart | None:
    """From the beginning of a little-endian WAV; None if there is too little of it.

    Raises UndecodableError: CODEC_UNSUPPORTED for samples that are not decoded in pieces, and those of `check_shape`.
    """
    form: Form | None = None
    at, long_size = 12, 0
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            return None
        name, size = bytes(data[at : at + 4]), struct.unpack_from("<I", data, at + 4)[0]
        at += 8
        if name == b"data" and form is not None:
            return WaveStart(form, at, long_size if size == 0xFFFFFFFF and long_size else size)
        if name == b"data" or (name in {b"fmt ", b"ds64"} and size < 16):
            break
        if name in {b"fmt ", b"ds64"} and at + min(size, 40) > len(data):
            return None
        if name == b"ds64":
            long_size = struct.unpack_from("<Q", data, at + 8)[0]
        elif name == b"fmt ":
            form = _form(data, at, size)
        at += size + (size & 1)
    raise UndecodableError("CODEC_UNSUPPORTED")


def _form(data: memoryview, at: int, size: int) -> Form:
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", data, at)
    if tag == _EXTENSIBLE and size >= 26:
        tag = struct.unpack_from("<H", data, at + 24)[0]
    check_shape(channels, rate)
    if (tag, bits) not in _WAVE_FORMATS:
        raise UndecodableError("CODEC_UNSUPPORTED")
    return Form(_WAVE_FORMATS[tag, bits], rate, channels)


def _to_float(data: memoryview, kind: str) -> npt.NDArray[np.float32]:
    if kind in _TABLES:
        return _TABLES[kind][np.frombuffer(data, np.uint8)]
    if kind == "S24":
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return padded.view("<i4")[:, 0].astype(np.float32) / np.float32(1 << 31)
    dtype, full_scale = _NUMBERS[kind]
    return np.frombuffer(data, dtype).astype(np.float32) / np.float32(full_scale)


def _alaw_table() -> npt.NDArray[np.float32]:
    """ITU-T G.711: even bits inverted; sign, 3 bits of exponent, 4 of mantissa; the 13-bit value times 8 is on int16's scale."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    mantissa, exponent = (code & 15).astype(np.int32), (code >> 4 & 7).astype(np.int32)
    magnitude = np.where(exponent == 0, (mantissa << 4) + 8, ((mantissa << 4) + 0x108) << np.maximum(exponent - 1, 0))
    return (np.where(code & 0x80, magnitude, -magnitude) / 32768).astype(np.float32)


_TABLES: Final = {
    "ALAW": _alaw_table(),
    "MULAW": MULAW,
    "U8": ((np.arange(256) - 128) / 128).astype(np.float32),
}
"""Values of the codes of 8 bits."""

_NUMBERS: Final = {"LINEAR16": ("<i2", 1 << 15), "S32": ("<i4", 1 << 31), "FLOAT32": ("<f4", 1), "F64": ("<f8", 1)}
"""numpy's types, and what is full scale."""
