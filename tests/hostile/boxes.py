"""MP4, Matroska and ASF: boxes in boxes, and tables that promise more than there is."""

from __future__ import annotations

import struct
import zlib
from functools import cache
from typing import Final

from tests.hostile.foreign import zipped
from tests.hostile.good import encode
from tests.hostile.hostile import ANY, Hostile, hostile
from tests.hostile.pcm import noise

BROKEN, EMPTY, NO_STREAM = "AUDIO_UNREADABLE", "AUDIO_EMPTY", "AUDIO_NO_STREAM"


@cache
def m4a() -> bytes:
    return encode("mp4", "aac")


@cache
def webm() -> bytes:
    return encode("webm", "libopus", rate=48_000)


@cache
def wma() -> bytes:
    return encode("asf", "wmav2", rate=44_100, layout="stereo")


def box(name: bytes, content: bytes = b"", size: int | None = None) -> bytes:
    return struct.pack(">I", (len(content) + 8 if size is None else size) & 0xFFFFFFFF) + name + content


def large_box(name: bytes, size: int) -> bytes:
    """A box with its size in 64 bits."""
    return struct.pack(">I4sQ", 1, name, size & (1 << 64) - 1)


FTYP: Final = box(b"ftyp", b"M4A \0\0\2\0M4A isom")


def patched(name: bytes, at: int, value: int, width: int = 4) -> bytes:
    """The good file with a number `at` bytes behind the name of its first box of that kind replaced."""
    audio = bytearray(m4a())
    start = audio.index(name) + 4 + at
    audio[start : start + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "big")
    return bytes(audio)


def resized(name: bytes, size: int) -> bytes:
    return patched(name, -8, size)


def nested(depth: int, name: bytes = b"moov") -> bytes:
    content = b""
    for _ in range(depth):
        content = box(name, content)
    return FTYP + content


def tracks(count: int) -> bytes:
    """The good file's one track so many times; they all share its samples."""
    audio = m4a()
    moov = audio.index(b"moov") - 4
    size = int.from_bytes(audio[moov : moov + 4], "big")
    body = audio[moov + 8 : moov + size]
    trak = body.index(b"trak") - 4
    length = int.from_bytes(body[trak : trak + 4], "big")
    many = body[:trak] + body[trak : trak + length] * count + body[trak + length :]
    return audio[:moov] + box(b"moov", many) + audio[moov + size :]


def vint(value: int, width: int = 8) -> bytes:
    """An EBML size."""
    return (value | 1 << 7 * width).to_bytes(width, "big")


def texts(count: int) -> bytes:
    """ITunes' metadata: so many entries, each with a name of its own."""
    entries = b"".join(
        box(b"\xa9" + b"%03x" % (n & 0xFFF), box(b"data", bytes([0, 0, 0, 1, 0, 0, 0, 0]) + b"v")) for n in range(count)
    )
    audio, meta = (
        m4a(),
        box(b"udta", box(b"meta", bytes(4) + box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9)) + box(b"ilst", entries))),
    )
    moov = audio.index(b"moov") - 4
    size = int.from_bytes(audio[moov : moov + 4], "big")
    return audio[:moov] + box(b"moov", audio[moov + 8 : moov + size] + box(b"udta", meta)) + audio[moov + size :]


UNKNOWN: Final = b"\x01" + b"\xff" * 7
EBML: Final = b"\x1aE\xdf\xa3" + vint(7, 1) + b"B\x82" + vint(4, 1) + b"webm"
SEGMENT, CLUSTER, TRACKS, TAGS, TAG = b"\x18S\x80g", b"\x1fC\xb6u", b"\x16T\xaek", b"\x12T\xc3g", b"ss"


def element(name: bytes, content: bytes, size: int | None = None) -> bytes:
    return name + vint(len(content) if size is None else size) + content


def ebml_depth(depth: int, name: bytes = SEGMENT) -> bytes:
    content = b""
    for _ in range(depth):
        content = element(name, content)
    return EBML + content


def simple_tags(depth: int) -> bytes:
    """SimpleTag may hold SimpleTag."""
    content = b""
    for _ in range(depth):
        content = element(b"\x67\xc8", content)
    return EBML + element(SEGMENT, element(TAGS, element(TAG, content)))


def track(number: int, kind: int, codec: bytes, more: bytes = b"") -> bytes:
    fields = element(b"\xd7", number.to_bytes(4, "big")) + element(b"s\xc5", number.to_bytes(4, "big"))
    return element(b"\xae", fields + element(b"\x83", bytes([kind])) + element(b"\x86", codec) + more)


def matroska(*inside: bytes) -> bytes:
    return EBML + element(SEGMENT, b"".join(inside))


def audio_track(rate: float, channels: int) -> bytes:
    audio = element(b"\xe1", element(b"\xb5", struct.pack(">d", rate)) + element(b"\x9f", channels.to_bytes(4, "big")))
    return track(1, 2, b"A_PCM/INT/LIT", audio)


def many_tags(count: int) -> bytes:
    """So many SimpleTags, each with a name of its own."""
    simple = b"".join(element(b"\x67\xc8", element(b"E\xa3", b"%06x" % n) + element(b"D\x87", b"v")) for n in range(count))
    return matroska(element(TRACKS, audio_track(16_000.0, 1)), element(TAGS, element(TAG, simple)), cluster(noise()))


def cluster(data: bytes) -> bytes:
    return element(CLUSTER, element(b"\xe7", b"\0") + element(b"\xa3", b"\x81\0\0\x80" + data))


def compressed_track(algorithm: int) -> bytes:
    """ContentEncoding: the demuxer would inflate every packet, and this one is a bomb."""
    content = element(b"P4", element(b"BT", bytes([algorithm])))
    encodings = element(b"m\x80", element(b"b@", content))
    return track(1, 2, b"A_PCM/INT/LIT", element(b"\xe1", element(b"\xb5", struct.pack(">d", 16_000.0))) + encodings)


def inflated() -> bytes:
    return matroska(element(TRACKS, compressed_track(0)), cluster(zlib.compress(bytes(200_000_000), 9)))


BOXES: Final[dict[str, Hostile]] = {
    "mp4: ftyp alone": hostile(lambda: FTYP, BROKEN, EMPTY),
    "mp4: a box of no size": hostile(lambda: FTYP + box(b"moov", b"", 0), BROKEN, EMPTY),
    "mp4: a box of 7 bytes": hostile(lambda: FTYP + box(b"moov", b"", 7) * 1000, BROKEN, EMPTY),
    "mp4: a box of -1 bytes": hostile(lambda: FTYP + large_box(b"moov", -1), BROKEN, EMPTY),
    "mp4: a box of 2^62 bytes": hostile(lambda: FTYP + large_box(b"moov", 1 << 62) + noise(), BROKEN, EMPTY),
    "mp4: a box of 64 bits that holds itself": hostile(lambda: FTYP + large_box(b"moov", 0) * 1000, BROKEN, EMPTY),
    "mp4: moov in moov, 5000 deep": hostile(lambda: nested(5000), BROKEN, EMPTY),
    "mp4: udta in udta, 5000 deep": hostile(lambda: FTYP + box(b"moov", nested(5000, b"udta")[len(FTYP) :]), BROKEN, EMPTY),
    "mp4: a million empty boxes": hostile(lambda: FTYP + box(b"free") * 1_000_000, BROKEN, EMPTY),
    "mp4: no moov": hostile(lambda: FTYP + box(b"mdat", noise()), BROKEN, EMPTY),
    "mp4: stsz of 2^32 sizes": hostile(lambda: patched(b"stsz", 8, 0xFFFFFFFF), *ANY),
    "mp4: stsz, each of 2^31 bytes": hostile(lambda: patched(b"stsz", 4, 0x7FFFFFFF), *ANY),
    "mp4: stsz, 2^32 of one byte": hostile(lambda: patched(b"stsz", 4, 1 << 32 | 0xFFFFFFFF, 8), *ANY),
    "mp4: stts of 2^32 entries": hostile(lambda: patched(b"stts", 4, 0xFFFFFFFF), *ANY),
    "mp4: stts, 2^31 samples an entry": hostile(lambda: patched(b"stts", 8, 0x7FFFFFFF), *ANY),
    "mp4: stts, each of 2^31 ticks": hostile(lambda: patched(b"stts", 12, 0x7FFFFFFF), *ANY),
    "mp4: stsc of 2^32 entries": hostile(lambda: patched(b"stsc", 4, 0xFFFFFFFF), *ANY),
    "mp4: stsc, 2^31 samples a chunk": hostile(lambda: patched(b"stsc", 12, 0x7FFFFFFF), *ANY),
    "mp4: stco of 2^32 entries": hostile(lambda: patched(b"stco", 4, 0xFFFFFFFF), *ANY),
    "mp4: stco beyond the file": hostile(lambda: patched(b"stco", 8, 0xFFFFFFF0), *ANY),
    "mp4: stco at its own header": hostile(lambda: patched(b"stco", 8, 0), *ANY),
    "mp4: a time scale of 0": hostile(lambda: patched(b"mdhd", 12, 0), *ANY),
    "mp4: lasts 2^32 ticks": hostile(lambda: patched(b"mdhd", 16, 0xFFFFFFFF), *ANY),
    "mp4: an edit of -2^31": hostile(lambda: patched(b"elst", 12, 0x80000000), *ANY),
    "mp4: 2^32 edits": hostile(lambda: patched(b"elst", 4, 0xFFFFFFFF), *ANY),
    "mp4: 65535 channels": hostile(lambda: patched(b"mp4a", 16, 65_535, 2), *ANY),
    "mp4: an esds of 2^28 bytes": hostile(lambda: patched(b"esds", 4, 0x03FFFFFF7F, 5), *ANY),
    "mp4: moov as long as the file": hostile(lambda: resized(b"moov", 0x7FFFFFFF), *ANY),
    "mp4: trak longer than moov": hostile(lambda: resized(b"trak", 0x00FFFFFF), *ANY),
    "mp4: mdat of 4 GiB": hostile(lambda: resized(b"mdat", 0xFFFFFFFF), *ANY),
    "mp4: 20000 texts": hostile(lambda: texts(20_000), *ANY),
    "mp4: 2000 tracks": hostile(lambda: tracks(2000), *ANY),
    "mp4: cmov": hostile(
        lambda: FTYP + box(b"moov", box(b"cmov", box(b"dcom", b"zlib") + box(b"cmvd", b"\x7f\xff\xff\xff" + noise()))), *ANY
    ),
    "mp4: another file by URL": hostile(lambda: m4a().replace(b"url \0\0\0\1", b"url \0\0\0\0"), *ANY),
    "mp4 + zip": hostile(lambda: m4a() + zipped(), "AUDIO_POLYGLOT", says="a ZIP archive"),
    "mp4 + program": hostile(lambda: m4a() + b"\x7fELF\2\1\1" + bytes(99), "AUDIO_POLYGLOT", says="an executable (ELF)"),
    "webm: header alone": hostile(lambda: EBML, BROKEN, EMPTY),
    "webm: of another DocType": hostile(
        lambda: EBML.replace(b"webm", b"evil") + noise(), "AUDIO_UNSUPPORTED", says="an EBML document"
    ),
    "webm: no audio": hostile(lambda: matroska(element(TRACKS, track(1, 1, b"V_VP8"))), NO_STREAM, BROKEN, EMPTY),
    "webm: no tracks": hostile(lambda: matroska(element(TRACKS, b"")), EMPTY, BROKEN, NO_STREAM),
    "webm: subtitles alone": hostile(lambda: matroska(element(TRACKS, track(1, 17, b"S_TEXT/UTF8"))), NO_STREAM, BROKEN, EMPTY),
    "webm: 2000 tracks": hostile(
        lambda: matroska(element(TRACKS, b"".join(track(n + 1, 2, b"A_OPUS") for n in range(2000)))), *ANY
    ),
    "webm: segments in segments": hostile(lambda: ebml_depth(3000), *ANY),
    "webm: SimpleTag in SimpleTag": hostile(lambda: simple_tags(3000), *ANY),
    "webm: 100000 tags": hostile(lambda: many_tags(100_000), *ANY),
    "webm: everything of unknown size": hostile(lambda: EBML + (SEGMENT + UNKNOWN + CLUSTER + UNKNOWN) * 5000, *ANY),
    "webm: an element of 2^55 bytes": hostile(lambda: EBML + SEGMENT + vint(1 << 55) + CLUSTER + vint(1 << 55) + noise(), *ANY),
    "webm: rate NaN": hostile(lambda: matroska(element(TRACKS, audio_track(float("nan"), 1)), cluster(noise())), *ANY),
    "webm: rate 1e300": hostile(lambda: matroska(element(TRACKS, audio_track(1e300, 1)), cluster(noise())), *ANY),
    "webm: 2^32 channels": hostile(lambda: matroska(element(TRACKS, audio_track(16_000.0, 0xFFFFFFFF)), cluster(noise())), *ANY),
    "webm: a packet that inflates to 200 MB": hostile(inflated, *ANY),
    "webm: a header of 2^20 bytes": hostile(lambda: b"\x1aE\xdf\xa3" + vint(1 << 20) + bytes(1000), *ANY),
    "webm + program": hostile(lambda: matroska(element(TRACKS, b"")) + b"MZ" + bytes(58) + b"\x40\0\0\0PE\0\0", "AUDIO_POLYGLOT"),
    "wma: header alone": hostile(lambda: wma()[:30], BROKEN, EMPTY),
    "wma: objects of no size": hostile(lambda: wma()[:30] + bytes(24) * 5000, *ANY),
    "wma: packets of 0 bytes": hostile(lambda: wma().replace(struct.pack("<II", 3200, 3200), bytes(8)), *ANY),
    "wma: packets of 4 GiB": hostile(lambda: wma().replace(struct.pack("<II", 3200, 3200), b"\xff" * 8), *ANY),
}
