"""What a WAV header claims, read before libav does.

libav reports 0 or 1024 channels as merely "invalid", silently shortens a claimed length to what the file holds, and
silently ends where the header says that the samples do. WAV, RF64 (EBU Tech 3306), BW64 and big-endian RIFX share this layout.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np

from aligner_svc.audio.undecodable import MAX_CHANNELS

_LEAST_PLACEHOLDER: Final = 100_000_000
_ROUND: Final = (1_000_000, 1 << 20)
_HEADERS: Final = 128
"""Programs that cannot seek back write the most that 31 or 32 bits hold, or a round number, in either case perhaps less some
headers: a size from here on that is a multiple of these, or up to so many bytes less, is no length. By chance one in 4,000 is."""

_MAX_CHUNKS: Final = 1000
"""Chunks looked through: 512 MiB hold enough of eight bytes each to take a minute."""

_SLACK: Final = 0.1
"""Seconds behind the declared end that are no samples, whatever they are: padding, a line end, a signature."""

_LAST_CHUNKS: Final = (b"LIST", b"id3 ")
"""Chunks that programs write behind samples whose number they then fail to write."""

_LAST_CHUNK: Final = 1 << 16
"""Bytes at the end that are searched for one."""

_TAGS: Final = (b"ID3", b"TAG", b"APETAGEX")
"""What players append although it is no chunk."""

_FORMS: Final = (b"RIFF", b"RIFX", b"RF64", b"BW64")


@dataclass(frozen=True, slots=True)
class WaveHeader:
    """`rate` in Hz; `missing`: seconds that the header claims and the file does not hold.

    `end`: where the samples end (bytes). `declared_end`: where the header says they do, None if that is not known.
    `next`: where another WAV begins, 0 if none does: two recordings, one appended to the other.
    """

    channels: int
    rate: int
    missing: float
    end: int
    declared_end: int | None = None
    next: int = 0

    @property
    def extended(self) -> bool:
        """Whether there are samples behind the declared end."""
        return self.declared_end is not None and self.end > self.declared_end


@dataclass(frozen=True, slots=True)
class _Format:
    endian: str
    channels: int
    rate: int
    a_second: int
    """Bytes."""


def read_wave_header(data: memoryview, max_seconds: float = 1e9) -> WaveHeader | None:
    """The format chunk, and the data chunk if there is one; None without a format chunk.

    A claim of more than `max_seconds`, which would not be accepted anyway, is a placeholder.
    """
    endian = ">" if bytes(data[:4]) == b"RIFX" else "<"
    fmt: _Format | None = None
    long_size = 0  # ds64's, for a data chunk that is too long for 32 bits
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            break
        name, size = bytes(data[at : at + 4]), struct.unpack_from(endian + "I", data, at + 4)[0]
        at += 8
        if name == b"ds64" and at + 16 <= len(data):
            long_size = struct.unpack_from(endian + "Q", data, at + 8)[0]
        elif name == b"fmt " and at + 16 <= len(data):
            fmt = _format(endian, data, at)
        elif name == b"data":
            return _with_data(fmt, data, at, long_size if size == 0xFFFFFFFF else size, max_seconds) if fmt else None
        at += size + (size & 1)
    return WaveHeader(fmt.channels, fmt.rate, 0.0, len(data)) if fmt else None


def _format(endian: str, data: memoryview, at: int) -> _Format:
    """Bytes a second are known of PCM even if the header has them wrong."""
    tag, channels, rate, a_second, bits = struct.unpack_from(endian + "HHIIxxH", data, at)
    if tag in {1, 3} and 8 <= bits <= 64 and channels <= MAX_CHANNELS:
        a_second = channels * ((bits + 7) // 8) * rate
    return _Format(endian, channels, rate, max(1, a_second))


def _with_data(fmt: _Format, data: memoryview, start: int, claimed: int, max_seconds: float) -> WaveHeader:
    channels, rate, a_second, endian = fmt.channels, fmt.rate, fmt.a_second, fmt.endian
    room = len(data) - start
    if claimed > room:
        missing = (claimed - room) / a_second
        placeholder = claimed / a_second > max_seconds or is_placeholder(claimed)
        return WaveHeader(channels, rate, 0.0 if placeholder else missing, len(data))
    end = start + claimed
    behind = end + (claimed & 1)
    if claimed in {0, room} or len(data) - behind <= _SLACK * a_second:
        chunks = claimed == 0 and room and _are_chunks(data, behind, endian)
        return WaveHeader(channels, rate, 0.0, start if chunks else _samples_end(data, endian) if claimed == 0 else end)
    if bytes(data[behind : behind + 4]) in _FORMS and bytes(data[behind + 8 : behind + 12]) == b"WAVE":
        return WaveHeader(channels, rate, 0.0, end, next=behind)
    if _are_chunks(data, behind, endian) or _are_chunks(data, end, endian):
        return WaveHeader(channels, rate, 0.0, end)
    return WaveHeader(channels, rate, 0.0, _samples_end(data, endian), declared_end=end)


def _samples_end(data: memoryview, endian: str) -> int:
    """The end of the file, or the start of a last chunk of tags that ends there."""
    tail = bytes(data[-_LAST_CHUNK:])
    for name in _LAST_CHUNKS:
        at = tail.rfind(name)
        if at >= 0 and len(tail) - at - 8 in {size := struct.unpack_from(endian + "I", tail + bytes(8), at + 4)[0], size + 1}:
            return len(data) - len(tail) + at
    return len(data)


def is_placeholder(size: int) -> bool:
    """Whether it is what programs write that do not know the length yet."""
    return size >= 0x7FFF0000 or (size >= _LEAST_PLACEHOLDER and any(-size % unit <= _HEADERS for unit in _ROUND))


def _are_chunks(data: memoryview, at: int, endian: str) -> bool:
    """Whether chunks, tags or zeros follow, up to the end of the file or a little past it."""
    for _ in range(_MAX_CHUNKS):
        head = bytes(data[at : at + 8])
        if len(head) < 8 or head.startswith(_TAGS):
            return True
        if not any(head):
            return not np.frombuffer(data[at:], np.uint8).any()
        size = struct.unpack_from(endian + "I", head, 4)[0]
        if not all(32 <= character < 127 for character in head[:4]) or at + size > len(data):
            return False
        at += 8 + size + (size & 1)
    return True
