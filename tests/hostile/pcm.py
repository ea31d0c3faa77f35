"""Headers of WAV, RF64, AIFF, AU, W64 and CAF that lie."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from aligner_svc.audio.encoding import Encoding
from tests.hostile.hostile import ANY, DECODED, Hostile, hostile

UNKNOWN: Final = 0xFFFFFFFF


def noise(count: int = 8000) -> bytes:
    """Half a second at 16 kHz, 16 bits."""
    return np.random.default_rng(7).integers(-9000, 9000, count).astype("<i2").tobytes()


def chunk(name: bytes, data: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(data) if size is None else size) + data + b"\0" * (len(data) & 1)


def fmt(
    tag: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16, align: int | None = None, more: bytes = b""
) -> bytes:
    align = channels * bits // 8 & 0xFFFF if align is None else align
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * align & UNKNOWN, align, bits) + more)


def riff(*chunks: bytes, size: int | None = None, magic: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return magic + struct.pack("<I", len(body) if size is None else size) + body


def wav(data: bytes | None = None, claimed: int | None = None, **header: int) -> bytes:
    return riff(fmt(**header), chunk(b"data", noise() if data is None else data, claimed))  # type: ignore[arg-type]


def rf64(riff_size: int, data_size: int, samples: int, table: int = 0) -> bytes:
    """`table`: entries of chunk sizes that ds64 claims to hold."""
    ds64 = chunk(b"ds64", struct.pack("<QQQI", riff_size, data_size, samples, table))
    return riff(ds64, fmt(), chunk(b"data", noise(), UNKNOWN), size=UNKNOWN, magic=b"RF64")


def extended(sign: int, exponent: int, mantissa: int) -> bytes:
    """AIFF's sample rate: 80 bits of IEEE 754 extended."""
    return struct.pack(">HQ", sign << 15 | exponent, mantissa)


def aiff(rate: bytes = extended(0, 16383 + 13, 16_000 << 50), channels: int = 1, frames: int = 8000, bits: int = 16) -> bytes:
    comm = b"COMM" + struct.pack(">IHIH", 18, channels, frames, bits) + rate
    body = b"AIFF" + comm + b"SSND" + struct.pack(">III", 16_008, 0, 0) + noise()
    return b"FORM" + struct.pack(">I", len(body)) + body


def au(size: int = 16_000, coding: int = 3, rate: int = 16_000, channels: int = 1, offset: int = 24) -> bytes:
    return b".snd" + struct.pack(">IIIII", offset, size & UNKNOWN, coding, rate, channels) + noise()


def w64(data_size: int) -> bytes:
    guid = {name: name + bytes.fromhex("f3acd3118cd100c04f8edb8a") for name in (b"wave", b"fmt ", b"data")}
    form = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16)
    return (
        bytes.fromhex("726966662e91cf11a5d628db04c10000")
        + struct.pack("<Q", 16_104)
        + guid[b"wave"]
        + guid[b"fmt "]
        + struct.pack("<Q", 40)
        + form
        + guid[b"data"]
        + struct.pack("<Q", data_size)
        + noise()
    )


def caf(rate: float = 16_000.0, packet_bytes: int = 2, frames: int = 1, channels: int = 1, size: int = 16_004) -> bytes:
    desc = struct.pack(">d4sIIIII", rate, b"lpcm", 2, packet_bytes, frames, channels, 16)
    return b"caff\0\1\0\0desc" + struct.pack(">q", 32) + desc + b"data" + struct.pack(">qI", size, 0) + noise()


def caf_table(packets: int) -> bytes:
    """A packet table that claims to describe so many packets, in a few bytes."""
    desc = struct.pack(">d4sIIIII", 44_100.0, b"aac ", 2, 0, 1024, 2, 0)
    pakt = struct.pack(">qqii", packets, 1 << 40, 0, 0) + b"\x10" * 64
    return (
        b"caff\0\1\0\0desc" + struct.pack(">q", 32) + desc + b"pakt" + struct.pack(">q", len(pakt)) + pakt
        + b"data" + struct.pack(">qI", 16_004, 0) + noise()
    )  # fmt: skip


def floats(value: float) -> bytes:
    audio = np.zeros(8000, "<f4")
    audio[5000] = value
    return audio.tobytes()


def extensible(channels: int, mask: int) -> bytes:
    """WAVE_FORMAT_EXTENSIBLE: the speakers of a mask, and the real format as a GUID."""
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    return riff(fmt(0xFFFE, channels, more=struct.pack("<HHI", 22, 16, mask) + guid), chunk(b"data", noise()))


def adpcm(tag: int, align: int, per_block: int, coefficients: int = 7) -> bytes:
    """Microsoft's (2) or IMA's (17) ADPCM with block sizes and tables of our choice; every step as large as it gets."""
    more = struct.pack("<HH", 2, per_block)
    if tag == 2:
        more = struct.pack("<HHH", 32, per_block, coefficients) + b"\x7f\xff\x7f\xff" * 7
    blocks = (b"\xff\x7f\x58\0" + b"\x77" * 1020) * 16
    return riff(fmt(tag, 1, 22_050, 4, align, more), chunk(b"data", blocks))


def info(count: int) -> bytes:
    """So many texts of one letter, each with a name of its own."""
    texts = b"".join(chunk(b"%04x" % (n & 0xFFFF), b"v\0") for n in range(count))
    return riff(fmt(), chunk(b"LIST", b"INFO" + texts), chunk(b"data", noise()))


OUT, LONG, EMPTY, BROKEN = "SAMPLE_RATE_OUT_OF_RANGE", "AUDIO_TOO_LONG", "AUDIO_EMPTY", "AUDIO_UNREADABLE"
CHANNELS, FINITE = "CHANNELS_OUT_OF_RANGE", "AUDIO_NOT_FINITE"

PCM: Final[dict[str, Hostile]] = {
    "wav: 0 channels": hostile(lambda: wav(channels=0), CHANNELS, says="0 channels"),
    "wav: 1024 channels": hostile(lambda: wav(channels=1024), CHANNELS, says="1024 channels"),
    "wav: 65535 channels": hostile(lambda: wav(channels=65_535), CHANNELS, says="65535 channels"),
    "wav: rate 0": hostile(lambda: wav(rate=0), OUT),
    "wav: rate 1": hostile(lambda: wav(rate=1), OUT),
    "wav: rate 4e9": hostile(lambda: wav(rate=4_000_000_000), OUT),
    "wav: 0 bits": hostile(lambda: wav(bits=0), BROKEN, "CODEC_UNSUPPORTED"),
    "wav: 65535 bits": hostile(lambda: wav(bits=65_535), BROKEN, "CODEC_UNSUPPORTED"),
    "wav: block align 0": hostile(lambda: wav(align=0), DECODED, BROKEN),
    "wav: block align 65535": hostile(lambda: wav(align=65_535), DECODED, BROKEN),
    "wav: claims 2^32 bytes": hostile(lambda: wav(claimed=UNKNOWN), DECODED),
    "wav: claims 2 GiB": hostile(lambda: wav(claimed=0x7FFFFFFF), DECODED),
    "wav: claims less than it holds": hostile(lambda: wav(claimed=2), DECODED),
    "wav: one sample": hostile(lambda: wav(b"\1\0"), DECODED),
    "wav: half a sample": hostile(lambda: wav(b"\1"), EMPTY, BROKEN),
    "wav: no sample": hostile(lambda: wav(b""), EMPTY),
    "wav: no format": hostile(lambda: riff(chunk(b"data", noise())), BROKEN, EMPTY),
    "wav: data before format": hostile(lambda: riff(chunk(b"data", noise()), fmt()), *ANY),
    "wav: two formats": hostile(lambda: riff(fmt(), fmt(channels=1024, rate=1), chunk(b"data", noise())), *ANY),
    "wav: ten thousand formats": hostile(lambda: riff(*[fmt()] * 10_000, chunk(b"data", noise())), DECODED, BROKEN),
    "wav: a chunk of 2^32": hostile(lambda: riff(chunk(b"LIST", b"INFO", UNKNOWN), fmt(), chunk(b"data", noise())), *ANY),
    "wav: a format chunk of 2^32": hostile(lambda: riff(b"fmt " + b"\xff" * 4 + noise()), *(BROKEN, EMPTY, CHANNELS, OUT)),
    "wav: empty chunks": hostile(lambda: riff(*[chunk(b"junk", b"")] * 100_000, fmt(), chunk(b"data", noise())), DECODED),
    "wav: 2000 data chunks": hostile(lambda: riff(fmt(), *[chunk(b"data", b"\1\0")] * 2000), DECODED),
    "wav: header alone": hostile(lambda: b"RIFF\0\0\0\0WAVE", EMPTY, BROKEN),
    "wav: NaN": hostile(lambda: wav(floats(float("nan")), tag=3, bits=32), FINITE),
    "wav: infinity": hostile(lambda: wav(floats(float("inf")), tag=3, bits=32), FINITE),
    "wav: 1e38": hostile(lambda: wav(floats(1e38), tag=3, bits=32), DECODED),
    "wav: the smallest floats": hostile(lambda: wav(floats(1e-45), tag=3, bits=32), DECODED),
    "wav: eight speakers of a mask for none": hostile(lambda: extensible(8, 0), DECODED),
    "wav: two channels, 32 speakers": hostile(lambda: extensible(2, UNKNOWN), DECODED),
    "wav: MS ADPCM, blocks of 0": hostile(lambda: adpcm(2, 0, 2), BROKEN, EMPTY, DECODED),
    "wav: MS ADPCM, blocks of 65535": hostile(lambda: adpcm(2, 65_535, 65_535), BROKEN, EMPTY, DECODED),
    "wav: MS ADPCM, loudest steps": hostile(lambda: adpcm(2, 1024, 2036, 65_535), DECODED, BROKEN),
    "wav: IMA ADPCM, blocks of 1": hostile(lambda: adpcm(17, 1, 1), BROKEN, EMPTY, DECODED),
    "wav: IMA ADPCM, loudest steps": hostile(lambda: adpcm(17, 1024, 2041), DECODED),
    "wav: a codec of 1994": hostile(lambda: wav(tag=0x0022), "CODEC_UNSUPPORTED", BROKEN),
    "wav: MP3 by its tag, noise by content": hostile(lambda: wav(tag=0x0055), BROKEN),
    "wav: 65536 texts": hostile(lambda: info(65_536), DECODED, BROKEN),
    "rf64: 2^62 samples": hostile(lambda: rf64(1 << 62, 1 << 62, 1 << 61), DECODED, BROKEN),
    "rf64: sizes of 2^64": hostile(lambda: rf64((1 << 64) - 1, (1 << 64) - 1, 0), DECODED, BROKEN, EMPTY),
    "rf64: a table of 2^32 chunks": hostile(lambda: rf64(16_100, 16_000, 8000, UNKNOWN), DECODED, BROKEN),
    "rf64: no ds64": hostile(lambda: riff(fmt(), chunk(b"data", noise(), UNKNOWN), size=UNKNOWN, magic=b"RF64"), DECODED, BROKEN),
    "aiff: rate NaN": hostile(lambda: aiff(extended(0, 32_767, 3 << 62)), OUT, BROKEN),
    "aiff: rate infinite": hostile(lambda: aiff(extended(0, 32_767, 1 << 63)), OUT, BROKEN),
    "aiff: rate negative": hostile(lambda: aiff(extended(1, 16_396, 16_000 << 50)), OUT, BROKEN, DECODED),
    "aiff: rate 0": hostile(lambda: aiff(bytes(10)), OUT, BROKEN),
    "aiff: rate 1e-4900": hostile(lambda: aiff(extended(0, 1, 1 << 63)), OUT, BROKEN),
    "aiff: 65535 channels": hostile(lambda: aiff(channels=65_535), CHANNELS, BROKEN),
    "aiff: 2^32 frames": hostile(lambda: aiff(frames=UNKNOWN), DECODED, BROKEN),
    "aiff: 0 bits": hostile(lambda: aiff(bits=0), *ANY),
    "au: 2^32 bytes": hostile(lambda: au(-1), DECODED),
    "au: 0 channels": hostile(lambda: au(channels=0), BROKEN, CHANNELS),
    "au: 65535 channels": hostile(lambda: au(channels=65_535), BROKEN, CHANNELS),
    "au: rate 2^32": hostile(lambda: au(rate=UNKNOWN), BROKEN, OUT),
    "au: an annotation of 4 GiB": hostile(lambda: au(offset=UNKNOWN), BROKEN, EMPTY, DECODED),
    "au: an unknown coding": hostile(lambda: au(coding=99), BROKEN, "CODEC_UNSUPPORTED"),
    "w64: 2^62 bytes": hostile(lambda: w64(1 << 62), DECODED, BROKEN),
    "w64: less than its own header": hostile(lambda: w64(1), BROKEN, EMPTY, DECODED),
    "caf: rate NaN": hostile(lambda: caf(float("nan")), BROKEN, OUT),
    "caf: rate 1e300": hostile(lambda: caf(1e300), BROKEN, OUT),
    "caf: packets of no frame": hostile(lambda: caf(frames=0), DECODED, BROKEN),
    "caf: packets of 4 GiB": hostile(lambda: caf(packet_bytes=UNKNOWN), BROKEN, EMPTY, DECODED),
    "caf: 65535 channels": hostile(lambda: caf(channels=65_535), BROKEN, CHANNELS),
    "caf: 2^62 bytes": hostile(lambda: caf(size=1 << 62), DECODED, BROKEN),
    "caf: a table of 2^40 packets": hostile(lambda: caf_table(1 << 40), BROKEN, EMPTY),
    "caf: a table of -1 packets": hostile(lambda: caf_table(-1), BROKEN, EMPTY),
    "LINEAR16 that is a WAV": hostile(wav, "ENCODING_MISMATCH", says="a WAV file", encoding=Encoding.LINEAR16),
    "FLOAT32 of random bits": hostile(lambda: np.random.default_rng(3).bytes(64_000), FINITE, encoding=Encoding.FLOAT32),
    "MULAW of one byte": hostile(lambda: b"\0", DECODED, encoding=Encoding.MULAW),
}
