"""Ogg pages that loop, lie about time, or hold hours in kilobytes."""

from __future__ import annotations

import struct
from functools import cache
from typing import Final

from tests.hostile.compressed import ADTS_FRAME, MPEG25_FRAME, many_comments, silent_flac
from tests.hostile.good import encode
from tests.hostile.hostile import ANY, DECODED, Hostile, hostile

BROKEN, EMPTY, LONG, NO_STREAM = "AUDIO_UNREADABLE", "AUDIO_EMPTY", "AUDIO_TOO_LONG", "AUDIO_NO_STREAM"


def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 1 << 31 else value << 1) & 0xFFFFFFFF
        table.append(value)
    return table


_CRC: Final = _table()


def checksum(data: bytes) -> int:
    value = 0
    for byte in data:
        value = (value << 8 & 0xFFFFFFFF) ^ _CRC[value >> 24 ^ byte]
    return value


def page(packets: list[bytes], granule: int, number: int, flags: int = 0, serial: int = 1) -> bytes:
    """Packets below 255 bytes, 255 of them at most."""
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, granule, serial, number, 0)
    body = bytes([len(packets), *map(len, packets)]) + b"".join(packets)
    return head[:22] + struct.pack("<I", checksum(head + body)) + body


def opus_head(channels: int = 1, rate: int = 48_000, skip: int = 0, version: int = 1) -> bytes:
    return b"OpusHead" + struct.pack("<BBHIhB", version, channels, skip, rate, 0, 0)


OPUS_TAGS: Final = b"OpusTags" + bytes(8)
SILENCE: Final = b"\x0b\x06"
"""120 ms of Opus in two bytes: a packet of six frames of 20 ms, all of them empty."""


def opus(pages: int, head: bytes = b"", step: int = 255 * 5760, start: int = 0, tags: bytes = OPUS_TAGS) -> bytes:
    """`step`: samples at 48 kHz that the time of each page claims to go on; truthful by default."""
    parts = [page([head or opus_head()], 0, 0, 2), page([tags], 0, 1)]
    parts += [page([SILENCE] * 255, start + step * (n + 1), n + 2, 4 * (n == pages - 1)) for n in range(pages)]
    return b"".join(parts)


@cache
def hours_of_opus(hours: int) -> bytes:
    """30.6 s a page, half a kilobyte each; two pages are made by hand and the others differ in numbers alone."""
    return opus(hours * 3600 * 1000 // 30_600)


@cache
def speech() -> bytes:
    return encode("ogg", "libopus", rate=48_000)


def looped() -> bytes:
    """The last page of a good file 300 times, with the same number."""
    audio = speech()
    return audio + audio[audio.rindex(b"OggS") :] * 300


def granules(value: int) -> bytes:
    """Every page says the same time."""
    return opus(3, step=0, start=value)


def long_packet(packet: bytes) -> bytes:
    """An Opus file whose second packet, the tags, goes over as many pages as it takes."""
    pages, lacing = [page([opus_head()], 0, 0, 2)], [255] * (len(packet) // 255) + [len(packet) % 255]
    for start in range(0, len(lacing), 255):
        segments = lacing[start : start + 255]
        body = packet[start * 255 : start * 255 + sum(segments)]
        head = struct.pack("<4sBBqIII", b"OggS", 0, start > 0, 0, 1, start // 255 + 1, 0)
        rest = bytes([len(segments), *segments]) + body
        pages.append(head[:22] + struct.pack("<I", checksum(head + rest)) + rest)
    return b"".join(pages) + page([SILENCE] * 255, 255 * 5760, len(pages), 4)


OGG: Final[dict[str, Hostile]] = {
    "ogg: magic alone": hostile(lambda: b"OggS", BROKEN, EMPTY),
    "ogg: 10000 empty pages": hostile(lambda: page([], 0, 0) * 10_000, BROKEN, EMPTY, NO_STREAM),
    "ogg: the last page 300 times": hostile(looped, DECODED, BROKEN),
    "ogg: 24 h of silence in 1.4 MB": hostile(lambda: hours_of_opus(24), LONG),
    "ogg: an hour that claims 2^62": hostile(lambda: granules(1 << 62), DECODED, BROKEN, LONG),
    "ogg: time -1": hostile(lambda: granules(-1), DECODED, BROKEN, EMPTY),
    "ogg: time runs backwards": hostile(lambda: opus(20, step=-(1 << 40), start=1 << 60), DECODED, BROKEN, LONG, EMPTY),
    "ogg: time leaps 9 minutes a page": hostile(lambda: opus(100, step=48_000 * 550), *ANY),
    "ogg: 255 channels": hostile(lambda: opus(2, opus_head(255)), BROKEN, "CHANNELS_OUT_OF_RANGE", EMPTY, DECODED),
    "ogg: 0 channels": hostile(lambda: opus(2, opus_head(0)), BROKEN, "CHANNELS_OUT_OF_RANGE", EMPTY, DECODED),
    "ogg: everything skipped": hostile(lambda: opus(1, opus_head(skip=65_535)), *ANY),
    "ogg: tags of 4 GiB": hostile(lambda: opus(2, tags=b"OpusTags" + b"\xff" * 8), *ANY),
    "ogg: 100000 comments": hostile(lambda: long_packet(b"OpusTags" + many_comments(100_000)), *ANY),
    "ogg: 2000 streams at once": hostile(
        lambda: (
            b"".join(page([opus_head()], 0, 0, 2, n) for n in range(2000))
            + b"".join(page([OPUS_TAGS], 0, 1, 0, n) for n in range(2000))
        ),
        *(BROKEN, EMPTY, NO_STREAM),
    ),
    "ogg: 300 files in a row": hostile(lambda: b"".join(opus(1)[:-400] for _ in range(300)), DECODED, BROKEN, LONG),
    "ogg: a new rate every second": hostile(
        lambda: speech() * 5 + encode("ogg", "vorbis", rate=44_100, layout="stereo"), DECODED
    ),
    "ogg: theora alone": hostile(lambda: page([b"\x80theora\3\2\1" + bytes(32)], 0, 0, 2) * 3, NO_STREAM, BROKEN, EMPTY),
    "ogg: an unknown codec": hostile(
        lambda: page([b"\x01mystery" + bytes(32)], 0, 0, 2), *(NO_STREAM, BROKEN, EMPTY, "CODEC_UNSUPPORTED")
    ),
    "ogg + program": hostile(lambda: opus(2) + b"\x7fELF\2\1\1" + bytes(99), "AUDIO_POLYGLOT", says="an executable (ELF)"),
    "flac: 24 h of silence in 160 KB": hostile(lambda: silent_flac(10_547), LONG),
    "mp3: 50 minutes of silence in 3 MB": hostile(lambda: MPEG25_FRAME * 41_666, LONG),
    "aac: an hour of silence": hostile(lambda: ADTS_FRAME * 56_250, LONG, BROKEN, DECODED, "AUDIO_UNSUPPORTED"),
}
