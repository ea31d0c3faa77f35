"""What a WAV header claims, read before libav does.

libav reports 0 or 1024 channels as merely "invalid", and silently shortens a claimed length
to what the file holds. WAV, RF64 (EBU Tech 3306), BW64 and big-endian RIFX share this layout.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

_PLACEHOLDER: Final = 0x7FFFF000
"""Programs that cannot seek back write data sizes from here on: the length is not known."""

_MAX_CHUNKS: Final = 1000
"""Chunks looked through: 512 MiB hold enough of eight bytes each to take a minute."""


@dataclass(frozen=True, slots=True)
class WaveHeader:
    """`rate` in Hz; `missing`: seconds that the header claims and the file does not hold."""

    channels: int
    rate: int
    missing: float


def read_wave_header(data: memoryview) -> WaveHeader | None:
    """The format chunk, and the data chunk if there is one; None without a format chunk."""
    endian = ">" if bytes(data[:4]) == b"RIFX" else "<"
    fmt: tuple[int, int, int] | None = None  # channels, rate, bytes a second
    long_size = 0  # ds64's, for a data chunk that is too long for 32 bits
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            break
        name, size = bytes(data[at : at + 4]), struct.unpack_from(endian + "I", data, at + 4)[0]
        at += 8
        if name == b"ds64" and at + 16 <= len(data):
            long_size = struct.unpack_from(endian + "Q", data, at + 8)[0]
        elif name == b"fmt " and at + 12 <= len(data):
            fmt = struct.unpack_from(endian + "HII", data, at + 2)
        elif name == b"data":
            claimed = long_size if size == 0xFFFFFFFF else size if size < _PLACEHOLDER else 0
            missing = claimed - (len(data) - at)
            return WaveHeader(fmt[0], fmt[1], max(0, missing) / max(1, fmt[2])) if fmt else None
        at += size + (size & 1)
    return WaveHeader(fmt[0], fmt[1], 0.0) if fmt else None
