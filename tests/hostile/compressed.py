"""FLAC, MP3, AAC, AMR, AC-3 and WavPack, and the tags in front of them."""

from __future__ import annotations

import struct
from functools import cache
from typing import Final

from tests.hostile.foreign import png
from tests.hostile.hostile import ANY, DECODED, Hostile, hostile
from tests.hostile.pcm import noise

MPEG25_FRAME: Final = b"\xff\xe3\x18\xc4" + bytes(68)
"""72 ms of silence at 8 kHz, mono, 8 kbit/s: the least that MPEG audio takes for a second is a kilobyte."""

ADTS_FRAME: Final = bytes.fromhex("fff14c40021ffc") + b"\x01\x18\x20\x07" + bytes(5)
BROKEN, EMPTY, LONG, UNSUPPORTED = "AUDIO_UNREADABLE", "AUDIO_EMPTY", "AUDIO_TOO_LONG", "AUDIO_UNSUPPORTED"


def crc(data: bytes, width: int, polynomial: int) -> int:
    """Most significant bit first, starting at 0, as FLAC and Ogg want it."""
    value, top, mask = 0, 1 << width - 1, (1 << width) - 1
    for byte in data:
        value ^= byte << width - 8
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & mask
    return value


def streaminfo(
    rate: int = 8000, channels: int = 1, frames: int = 0, blocks: tuple[int, int] = (4096, 65_535), bits: int = 16
) -> bytes:
    packed = rate << 44 | (channels - 1) << 41 | (bits - 1) << 36 | frames
    return struct.pack(">HH", *blocks) + bytes(6) + struct.pack(">Q", packed) + bytes(16)


def flac(*blocks: tuple[int, bytes], audio: bytes = b"") -> bytes:
    """`blocks`: type and content of the metadata behind the STREAMINFO given first."""
    parts = [b"fLaC"]
    for n, (kind, data) in enumerate(blocks):
        parts.append(struct.pack(">I", (kind | 128 * (n == len(blocks) - 1)) << 24 | len(data)) + data)
    return b"".join(parts) + audio


@cache
def silent_frames(count: int, block: int = 65_535) -> bytes:
    """FLAC frames of zeros at 8 kHz: 8 s in 15 bytes."""
    frames = []
    for number in range(count):
        coded = chr(number).encode("utf-8", "surrogatepass")  # frame numbers are written as UTF-8 writes characters
        header = b"\xff\xf8\x74\x08" + coded + struct.pack(">H", block - 1)
        frame = header + bytes([crc(header, 8, 0x07)]) + b"\0\0\0"
        frames.append(frame + struct.pack(">H", crc(frame, 16, 0x8005)))
    return b"".join(frames)


def silent_flac(count: int, **claims: int) -> bytes:
    return flac((0, streaminfo(blocks=(65_535, 65_535), **claims)), audio=silent_frames(count))


def id3(content: bytes = b"", claimed: int | None = None, flags: int = 0) -> bytes:
    size = len(content) if claimed is None else claimed
    return b"ID3\4\0" + bytes([flags]) + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + content


def frame(name: bytes, content: bytes, claimed: int | None = None) -> bytes:
    """One frame of an ID3v2.4 tag."""
    size = len(content) if claimed is None else claimed
    return name + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + b"\0\0" + content


def picture(data: bytes) -> bytes:
    return id3(frame(b"APIC", b"\0image/png\0\3\0" + data))


def texts(count: int) -> bytes:
    """So many texts, each with a name of its own."""
    return id3(b"".join(frame(b"TXXX", b"\3k%d\0v" % n) for n in range(count)))


def chapters(count: int) -> bytes:
    return id3(b"".join(frame(b"CHAP", b"c%d\0" % n + b"\xff" * 16) for n in range(count)))


def nested_chapters(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = frame(b"CHAP", b"c\0" + bytes(16) + content)
    return id3(content)


def mp3(count: int = 20) -> bytes:
    return MPEG25_FRAME * count


def xing(frames: int, size: int) -> bytes:
    """A first frame whose Xing header claims so many frames and bytes."""
    return MPEG25_FRAME[:13] + b"Xing" + struct.pack(">III", 3, frames, size) + bytes(43) + mp3()


def vorbis_comment(count: int, length: int) -> bytes:
    return struct.pack("<I", 0) + struct.pack("<I", count) + struct.pack("<I", length) + b"A=B"


def many_comments(count: int) -> bytes:
    """So many comments, each with a name of its own: looking names up in a list would take quadratic time."""
    comments = b"".join(struct.pack("<I", 10) + b"%08x=v" % n for n in range(count))
    return bytes(4) + struct.pack("<I", count) + comments


def flac_picture(claimed: int) -> bytes:
    return struct.pack(">II", 3, 9) + b"image/png" + struct.pack(">IIIIII", 0, 1, 1, 24, 0, claimed) + png()


FULL_FLAC: Final = (0, streaminfo())

COMPRESSED: Final[dict[str, Hostile]] = {
    "flac: 2^36 frames in 132 bytes": hostile(lambda: silent_flac(6, frames=(1 << 36) - 1)[:132], DECODED),
    "flac: 4 h of 8 channels in 300 bytes": hostile(
        lambda: flac((0, streaminfo(192_000, 8, 192_000 * 14_400, bits=32)), audio=noise(129)), BROKEN, EMPTY
    ),
    "flac: rate 0": hostile(
        lambda: flac((0, streaminfo(0)), audio=silent_frames(2)), DECODED, BROKEN, "SAMPLE_RATE_OUT_OF_RANGE"
    ),
    "flac: rate 1048575": hostile(lambda: flac((0, streaminfo(1_048_575)), audio=silent_frames(2)), *(DECODED, BROKEN)),
    "flac: blocks of 0": hostile(lambda: flac((0, streaminfo(blocks=(0, 0))), audio=silent_frames(2)), DECODED, BROKEN),
    "flac: no frame": hostile(lambda: flac((0, streaminfo())), BROKEN, EMPTY),
    "flac: metadata without end": hostile(
        lambda: flac((0, streaminfo())).replace(b"\x80", b"\0", 1) + b"\1\0\0\0" * 50_000, *(BROKEN, EMPTY)
    ),
    "flac: metadata of 16 MiB in 8 bytes": hostile(lambda: flac(FULL_FLAC)[:42] + b"\1\xff\xff\xff" + bytes(8), BROKEN, EMPTY),
    "flac: two STREAMINFO": hostile(
        lambda: flac(FULL_FLAC, (0, streaminfo(channels=8)), audio=silent_frames(2)), DECODED, BROKEN
    ),
    "flac: 2^32 comments": hostile(
        lambda: flac(FULL_FLAC, (4, vorbis_comment(0xFFFFFFFF, 3)), audio=silent_frames(2)), DECODED, BROKEN
    ),
    "flac: 100000 comments": hostile(lambda: flac(FULL_FLAC, (4, many_comments(100_000)), audio=silent_frames(2)), *ANY),
    "flac: a comment of 4 GiB": hostile(
        lambda: flac(FULL_FLAC, (4, vorbis_comment(1, 0xFFFFFFFF)), audio=silent_frames(2)), DECODED, BROKEN
    ),
    "flac: a picture of 4 GiB": hostile(
        lambda: flac(FULL_FLAC, (6, flac_picture(0xFFFFFFFF)), audio=silent_frames(2)), DECODED, BROKEN
    ),
    "flac: 500 pictures": hostile(
        lambda: flac(FULL_FLAC, *[(6, flac_picture(len(png())))] * 500, audio=silent_frames(2)), DECODED, BROKEN
    ),
    "flac: magic alone": hostile(lambda: b"fLaC", BROKEN, EMPTY),
    "flac: frames with a wrong checksum": hostile(
        lambda: flac(FULL_FLAC, audio=silent_frames(4).replace(b"\0\0\0", b"\0\1\0")), DECODED, BROKEN
    ),
    "mp3: a tag of 256 MiB in 10 bytes": hostile(lambda: id3(claimed=0x0FFFFFFF), UNSUPPORTED, says="longer than the file"),
    "mp3: a tag alone": hostile(lambda: id3(bytes(100)), UNSUPPORTED, says="without audio"),
    "mp3: a tag before a picture": hostile(lambda: id3(bytes(100)) + png(), UNSUPPORTED, says="no MPEG audio follows"),
    "mp3: half a million tags": hostile(lambda: id3() * 500_000, UNSUPPORTED, says="a pile of ID3 tags"),
    "mp3: 15 tags": hostile(lambda: id3(bytes(10)) * 15 + mp3(), DECODED),
    "mp3: a tag in a tag": hostile(lambda: id3(id3(id3(bytes(50)))) + mp3(), DECODED),
    "mp3: a frame longer than its tag": hostile(lambda: id3(frame(b"TIT2", b"\3title", 0x0FFFFFFF)) + mp3(), DECODED),
    "mp3: a compressed frame of 256 MiB": hostile(
        lambda: id3(b"TIT2\0\0\0\x20\0\x09\x7f\x7f\x7f\x7f" + bytes(28)) + mp3(), DECODED
    ),
    "mp3: frames of no size": hostile(lambda: id3(frame(b"TIT2", b"") * 100_000) + mp3(), DECODED),
    "mp3: 100000 texts": hostile(lambda: texts(100_000) + mp3(), DECODED),
    "mp3: chapters without end": hostile(lambda: chapters(20_000) + mp3(), DECODED),
    "mp3: chapters in chapters": hostile(lambda: nested_chapters(2000) + mp3(), DECODED),
    "mp3: PNG in its tag": hostile(lambda: picture(png()) + mp3(), DECODED),
    "mp3: a picture of 100 MB": hostile(lambda: picture(png() + bytes(100_000_000)) + mp3(), *ANY),
    "mp3: a picture that is none": hostile(lambda: picture(b"\x89PNG\r\n\x1a\n" + b"\xff" * 1000) + mp3(), DECODED),
    "mp3: free bit rate": hostile(lambda: (b"\xff\xfb\x00\xc4" + bytes(413)) * 20, UNSUPPORTED),
    "mp3: Xing with 2^32 frames": hostile(lambda: xing(0xFFFFFFFF, 0xFFFFFFFF), DECODED),
    "mp3: Xing with no frames": hostile(lambda: xing(0, 0), DECODED),
    "mp3: rate and channels change with every frame": hostile(
        lambda: (MPEG25_FRAME + b"\xff\xfb\x10\x04" + bytes(100)) * 200 + mp3(), DECODED, BROKEN, UNSUPPORTED
    ),
    "mp3: noise between frames": hostile(lambda: mp3(4) + noise(100_000) + mp3(4), DECODED, BROKEN),
    "mp3: nothing but sync": hostile(lambda: b"\xff\xfb\x90" * 300_000, BROKEN, EMPTY, DECODED),
    "aac: nothing but headers": hostile(lambda: ADTS_FRAME[:7] * 10_000, *(UNSUPPORTED, BROKEN)),
    "aac: frames of zeros": hostile(
        lambda: (bytes.fromhex("fff14c4008021ffc")[:7] + bytes(57)) * 500, BROKEN, UNSUPPORTED, DECODED
    ),
    "aac: claims 8191 bytes": hostile(lambda: bytes.fromhex("fff14c43fffffc") + noise(100), BROKEN, EMPTY, DECODED),
    "amr: magic alone": hostile(lambda: b"#!AMR\n", EMPTY, BROKEN),
    "amr: frames of reserved types": hostile(lambda: b"#!AMR\n" + b"\x5c\x64\x6c\x74" * 1000, BROKEN, EMPTY, DECODED),
    "amr: 10 minutes of no data": hostile(lambda: b"#!AMR\n" + b"\x7c" * 30_000, *ANY),
    "amr: 50 minutes of silence": hostile(lambda: b"#!AMR\n" + (b"\x04" + bytes(12)) * 150_000, LONG),
    "amr: 8 channels of another version": hostile(lambda: b"#!AMR_MC1.0\n\0\0\0\x08" + b"\x7c" * 100, *(BROKEN, EMPTY, DECODED)),
    "ac3: sync alone": hostile(lambda: b"\x0bw" * 2000, BROKEN, EMPTY, UNSUPPORTED),
    "wavpack: 2^40 samples": hostile(
        lambda: b"wvpk" + struct.pack("<IHBBIIIII", 24 + 100, 0x410, 0, 0, 0xFFFFFFFF, 0, 22_050, 0x1801, 0) + bytes(100),
        BROKEN,
        EMPTY,
    ),
    "wavpack: a block of 4 GiB": hostile(
        lambda: b"wvpk" + struct.pack("<IHBBIIIII", 0xFFFFFFFF, 0x410, 0, 0, 8000, 0, 8000, 0x1801, 0) + noise(), BROKEN, EMPTY
    ),
}
