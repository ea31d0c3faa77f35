"""Known containers get their demuxer; everything else is named and refused."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from aligner_svc.audio.encoding import Encoding
from aligner_svc.audio.sniff import check_headerless, sniff
from aligner_svc.errors import InvalidArgumentError

MP3_FRAME = b"\xff\xfb\x90\x00" + bytes(413)  # MPEG-1 layer III, 128 kbit/s, 44.1 kHz: 417 bytes
MP2_FRAME = b"\xff\xfd\x80\x00" + bytes(414)  # MPEG-1 layer II, 128 kbit/s, 44.1 kHz: 417 bytes, 1 more here to break the chain
ADTS_FRAME = b"\xff\xf1\x50\x80\x02\x00\x00" + bytes(9)  # 16 bytes
ID3 = b"ID3\x03\x00\x00\x00\x00\x01\x48" + bytes(200)


@pytest.mark.parametrize(
    ("head", "demuxer"),
    [
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "wav"),
        (b"RIFX\x00\x00\x00\x24WAVEfmt ", "wav"),
        (b"RF64\xff\xff\xff\xffWAVEds64", "wav"),
        (b"BW64\xff\xff\xff\xffWAVEds64", "wav"),
        (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00" + bytes(24), "w64"),
        (b"FORM\x00\x00\x00\x24AIFFCOMM", "aiff"),
        (b"FORM\x00\x00\x00\x24AIFCFVER", "aiff"),
        (b"fLaC\x00\x00\x00\x22", "flac"),
        (ID3 + b"fLaC\x00\x00\x00\x22", "flac"),
        (ID3 + ID3 + b"fLaC\x00\x00\x00\x22", "flac"),
        (ID3 + MP3_FRAME, "mp3"),
        (ID3 + ADTS_FRAME * 2, "aac"),
        (ID3 + bytes(20_000) + MP3_FRAME * 3, "mp3"),  # padding that the tag forgot to count
        (ID3 * 15 + MP3_FRAME * 3, "mp3"),
        (b"\x00\x00\x00\x20ftypdash", "mov"),
        (b"\x00\x00\x00\x20ftypnew!", "mov"),  # brands appear every year
        (b"\x00\x00\x00\x01mdat\x00\x00\x00\x01\x00\x00\x00\x00", "mov"),
        (b"\x1a\x45\xdf\xa3\x87\x42\x82\x84webm", "matroska"),
        (b"\x1a\x45\xdf\xa3\x8b\x42\x82\x88matroska", "matroska"),
        (b"\x0b\x77\x00\x00\x04\x40", "ac3"),
        (b"\x0b\x77\x00\x00\xff\x80", "ac3"),  # E-AC-3 has other fields there
        (MP3_FRAME * 3, "mp3"),
        (MP3_FRAME, "mp3"),
        (b"\x00" * 100 + MP3_FRAME * 4, "mp3"),
        (MP3_FRAME[50:] + MP3_FRAME * 4, "mp3"),
        (MP2_FRAME[:417] * 3, "mp3"),
        (b"OggS\x00\x02", "ogg"),
        (b"\x00\x00\x00\x20ftypM4A ", "mov"),
        (b"\x00\x00\x00\x20ftypisom", "mov"),
        (b"\x00\x00\x00\x14ftypqt  ", "mov"),
        (b"\x00\x00\x10\x00moov", "mov"),
        (b"\x1a\x45\xdf\xa3\x01", "matroska"),
        (ADTS_FRAME * 2, "aac"),
        (b"caff\x00\x01", "caf"),
        (b".snd\x00\x00\x00\x18", "au"),
        (b"#!AMR\n", "amr"),
        (b"#!AMR-WB\n", "amr"),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "asf"),
        (b"wvpk\x00\x00", "wv"),
        (b"\x0b\x77\x00\x00", "ac3"),
    ],
)
def test_audio_is_known_by_its_first_bytes(head: bytes, demuxer: str) -> None:
    assert sniff(head) == demuxer
    assert sniff(memoryview(bytearray(head))) == demuxer


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "a JPEG image"),
        (b"GIF89a", "a GIF image"),
        (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "a WebP image"),
        (b"RIFF\x24\x00\x00\x00AVI LIST", "an AVI video"),
        (b"\x00\x00\x00\x18ftypheic", "a HEIC or AVIF image"),
        (b"BM\x36\x00\x00\x00", "a BMP image"),
        (b"%PDF-1.7", "a PDF document"),
        (b"PK\x03\x04\x14\x00", "a ZIP archive"),
        (b"\x1f\x8b\x08\x00", "a gzip archive"),
        (bytes(257) + b"ustar", "a tar archive"),
        (b"\x7fELF\x02\x01", "an executable (ELF)"),
        (b"MZ\x90\x00", "an executable (Windows)"),
        (b"SQLite format 3\x00", "an SQLite database"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"\n  <HTML>", "an HTML page"),
        (b"<?xml version='1.0'?>", "an XML document"),
        (b"#EXTM3U\n#EXT-X-VERSION:3", "an M3U or HLS playlist"),
        (b"\xef\xbb\xbf#EXTM3U\n", "an M3U or HLS playlist"),
        (b"ffconcat version 1.0\nfile 'x.wav'", "an ffconcat playlist"),
        (b"#!/bin/sh\n", "a script"),
        (b'{"words": []}', "JSON"),
        (b"Please call Stella.", "text"),
        ("größer, 你好".encode(), "text"),
        ("ö".encode() * 2047 + b"x" + "ö".encode() * 2, "text"),  # a character cut by the end of the head
        ("hello".encode("utf-16"), "text"),
        (b"MThd\x00\x00\x00\x06", "a MIDI file"),
        (b"\x00\x00\x00\x18ftypjp2 ", "a JPEG 2000 image"),
        (b"\x00\x00\x00\x18ftypcrx ", "a Canon raw image"),
        (b"RIFF\x24\x00\x00\x00ACONLIST", "an animated cursor"),
        (b"RIFF\x24\x00\x00\x00CDDAfmt ", "a RIFF file of another kind"),
        (b"MZ" + bytes(58) + b"\x40\x00\x00\x00PE\x00\x00", "an executable (Windows)"),
        (b"\x1a\x45\xdf\xa3\x87\x42\x82\x84evil", "an EBML document"),
        (b"wOFF\x00\x01\x00\x00" + bytes(32), "a font (WOFF)"),
        (b"gimp xcf v010" + bytes(32), "an image (XCF)"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'>", "an SVG image"),
        (b"<?xml version='1.0'?><s:svg>", "an SVG image"),
        (b"<?xml version='1.0'?>\n<playlist>", "an XSPF playlist"),
        (b"<smil xmlns=''>", "a SMIL playlist"),
        (b"[playlist]\nFile1=x", "a PLS playlist"),
        (b"BMW built it.", "text"),
        (b"MAC users will know.", "text"),
        (b"#!amrap\n", "an AMR file with a broken magic number"),
        (ID3, "an ID3 tag without audio"),
        (b"ID3\x03\x00\x00\x7f\x7f\x7f\x7f", "an ID3 tag that claims to be longer than the file"),
        (ID3 + b"\x89PNG\r\n\x1a\n", "an ID3 tag that no MPEG audio follows"),
        (ID3[:10].replace(b"\x01\x48", b"\0\0") * 1000, "a pile of ID3 tags"),
        (b"\x7fELF\x02\x01" + bytes(58) + MP3_FRAME * 4, "an executable (ELF)"),
        (b"\x89PNG\r\n\x1a\n" + MP3_FRAME * 4, "a PNG image"),
        (bytes(257) + b"ustar" + MP3_FRAME * 4, "a tar archive"),
        (b"wOFF\x00\x01\x00\x00" + MP3_FRAME * 4, "a font (WOFF)"),
    ],
)
def test_what_is_not_audio_is_named(head: bytes, name: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        sniff(head)
    assert caught.value.reason == "AUDIO_UNSUPPORTED"
    assert f"this is {name}" in caught.value.message
    assert "not audio" in caught.value.message
    assert caught.value.violations[0].field == "audio"


@pytest.mark.parametrize(
    ("head", "name"),
    [(b"MAC \x96\x0f", "Monkey's Audio"), (b"ajkg\x02", "Shorten audio"), (b"DSD \x1c\x00", "DSD audio")],
)
def test_audio_that_is_not_supported_is_not_called_something_else(head: bytes, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="which is not supported") as caught:
        sniff(head)
    assert name in caught.value.message


@pytest.mark.parametrize(
    "head", [b"\x01\x02\x03\x04", bytes(64), b"\xff" * 5000, MP2_FRAME * 3, b"\x00RIFF", b"\x0b\x77\x00\x00\xff\xff"]
)
def test_the_refusal_of_unknown_bytes_mentions_headerless_audio(head: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match=r"config\.encoding") as caught:
        sniff(head)
    assert caught.value.reason == "AUDIO_UNSUPPORTED"


def test_no_bytes_are_empty_audio() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        sniff(b"")
    assert caught.value.reason == "AUDIO_EMPTY"


def zipped(comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a"), b"")  # without the time, which no two test processes share
        archive.comment = comment
    return buffer.getvalue()


def riff(*chunks: bytes, magic: bytes = b"RIFF", size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return magic + (len(body) if size is None else size).to_bytes(4, "little") + body


EXE = b"MZ" + bytes(58) + b"\x40\x00\x00\x00PE\x00\x00"
ELF = b"\x7fELF\x02\x01\x01"
WAV = riff(b"data\x08\x00\x00\x00" + bytes(8))
AIFF = b"FORM\x00\x00\x00\x0cAIFFSSND\x00\x00\x00\x00"
MP4 = b"\x00\x00\x00\x10ftypM4A \x00\x00\x00\x00" + b"\x00\x00\x00\x01mdat\x00\x00\x00\x00\x00\x00\x00\x18" + bytes(8)
WEBM = b"\x1a\x45\xdf\xa3\x87\x42\x82\x84webm" + b"\x18\x53\x80\x67\x84" + bytes(4)
CAF = b"caff\x00\x01\x00\x00data\x00\x00\x00\x00\x00\x00\x00\x04" + bytes(4)
AU = b".snd\x00\x00\x00\x18\x00\x00\x00\x04" + bytes(16)
OGG = b"OggS\x00\x02" + bytes(20) + b"\x01\x05hello"
W64 = bytes.fromhex("726966662e91cf11a5d628db04c10000") + (40).to_bytes(8, "little") + bytes(16)
WMA = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + (30).to_bytes(8, "little") + bytes(6)


@pytest.mark.parametrize("audio", [WAV, AIFF, MP4, WEBM, CAF, AU, OGG, W64, WMA])
@pytest.mark.parametrize(
    ("tail", "name"), [(EXE, "an executable (Windows)"), (ELF, "an executable (ELF)"), (b"\x1f\x8b\x08\x00", "a gzip archive")]
)
def test_a_file_behind_the_end_of_the_audio_is_found(audio: bytes, tail: bytes, name: str) -> None:
    container = sniff(audio)
    for padding in (b"", bytes(300)):
        with pytest.raises(InvalidArgumentError) as caught:
            sniff(audio + padding + tail)
        assert caught.value.reason == "AUDIO_POLYGLOT"
        assert f"and {name}" in caught.value.message
        assert caught.value.violations[0].field == "audio"
    assert sniff(audio + bytes(300)) == container, "padding is no file"
    assert sniff(audio + b"ID3v1 or whatever" + tail) == container, "programs do not find a file behind noise"


@pytest.mark.parametrize(
    "audio", [WAV, MP4, WEBM, OGG, b"fLaC\x00\x00\x00\x22" + bytes(40), MP3_FRAME * 4, ADTS_FRAME * 4, ID3 + MP3_FRAME * 4]
)
@pytest.mark.parametrize("comment", [b"", b"PK\x05\x06", bytes(0xFFFF), b"PK\x05\x06" * 1000, b"PK\x05\x06" + bytes(18)])
def test_a_zip_is_found_behind_any_audio(audio: bytes, comment: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match="and a ZIP archive at once") as caught:
        sniff(audio + zipped(comment))
    assert caught.value.reason == "AUDIO_POLYGLOT"


def test_a_zip_in_a_chunk_that_is_declared_is_found() -> None:
    content = zipped()
    with pytest.raises(InvalidArgumentError, match="a ZIP archive"):
        sniff(riff(b"data\x00\x00\x00\x00junk" + len(content).to_bytes(4, "little") + content))


def test_zip64_is_found() -> None:
    record = b"PK\x05\x06" + bytes(4) + b"\xff" * 4 + b"\xff" * 8 + bytes(2)
    with pytest.raises(InvalidArgumentError, match="a ZIP archive"):
        sniff(WAV + b"PK\x06\x07" + bytes(16) + record)


@pytest.mark.parametrize(
    "tail", [b"PK\x05\x06" + bytes(18), b"PK\x05\x06" + b"\x01" * 18, b"PK\x05\x06", b"PK\x01\x02" + bytes(18)]
)
def test_parts_of_a_zip_that_no_program_opens_are_noise(tail: bytes) -> None:
    assert sniff(MP3_FRAME * 4 + tail) == "mp3"


@pytest.mark.parametrize(
    ("audio", "name"),
    [
        (riff(b"junk\x10\x00\x00\x00%PDF-1.7\n" + bytes(7)), "a PDF document"),
        (riff(b"junk\x00\x02\x00\x00" + bytes(257 - 20) + b"ustar\x0000" + bytes(300)), "a tar archive"),
        (riff(b"junk\x00\x02\x00\x00" + bytes(128 - 20) + b"DICM" + bytes(300)), "a document or archive (DCM)"),
    ],
)
def test_a_file_that_readers_find_behind_the_first_byte_is_found(audio: bytes, name: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        sniff(audio)
    assert caught.value.reason == "AUDIO_POLYGLOT"
    assert name in caught.value.message


def test_a_pdf_magic_where_no_reader_searches_is_noise() -> None:
    assert sniff(riff(b"junk\x00\x08\x00\x00" + bytes(1100) + b"%PDF-1.7" + bytes(940))) == "wav"


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_wav_written_without_seeking_back_has_no_end(size: int) -> None:
    assert sniff(riff(b"data\xff\xff\xff\xff" + EXE, size=size)) == "wav"


def test_rf64_declares_its_end_in_ds64() -> None:
    ds64 = b"ds64\x18\x00\x00\x00" + (36).to_bytes(8, "little") + bytes(16)
    audio = riff(ds64, magic=b"RF64", size=0xFFFFFFFF)
    assert sniff(audio) == "wav"
    with pytest.raises(InvalidArgumentError, match="ELF"):
        sniff(audio + ELF)


def test_cover_art_is_no_polyglot() -> None:
    png = b"\x89PNG\r\n\x1a\n" + bytes(40)
    content = b"APIC" + bytes([0, 0, 0, len(png)]) + b"\x00\x00" + png
    assert sniff(b"ID3\x04\x00\x00\x00\x00\x00" + bytes([len(content)]) + content + MP3_FRAME * 3) == "mp3"


@pytest.mark.parametrize("encoding", [Encoding.LINEAR16, Encoding.FLOAT32, Encoding.MULAW])
@pytest.mark.parametrize(
    ("audio", "name"),
    [
        (WAV, "a WAV file"),
        (riff(b"ds64", magic=b"RF64"), "a WAV file"),
        (AIFF, "an AIFF file"),
        (b"fLaC\x00\x00\x00\x22" + bytes(34), "a FLAC file"),
        (OGG, "an Ogg file"),
        (ID3 + MP3_FRAME * 3, "an MP3 file"),
        (ID3 + b"fLaC", "a FLAC file"),
        (MP4, "an MP4 file"),
        (WEBM, "a WebM or Matroska file"),
        (CAF, "a CAF file"),
        (AU[:12] + b"\x00\x00\x00\x03" + bytes(8), "an AU file"),
        (b"#!AMR\n", "an AMR file"),
        (WMA, "a WMA file"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"%PDF-1.7", "a PDF document"),
        (zipped(), "a ZIP archive"),
        (bytes(1000) + zipped(), "a ZIP archive, by its end"),
    ],
)
def test_a_file_that_is_declared_to_be_samples_is_named(audio: bytes, name: str, encoding: Encoding) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_headerless(audio, encoding)
    assert caught.value.reason == "ENCODING_MISMATCH"
    assert f"but this is {name}" in caught.value.message
    assert encoding.value in caught.value.message
    assert caught.value.violations[0].field == "config.encoding"


@pytest.mark.parametrize(
    "audio",
    [
        b"",
        bytes(1000),
        b"\xff" * 1000,
        b"RIFF" + bytes(100),
        b"fLaC" + b"\x01" * 100,
        b"OggS" + b"\x01" * 100,
        ID3,  # without audio after it: 24 bits are no evidence
        ID3 + b"\x10" * 5000,
        MP3_FRAME * 5,
        b"MZ\x90\x00",
        b"#!/bin/sh",
        b"PK\x03\x04" + b"\xff" * 50,
    ],
)
def test_samples_may_be_any_bytes(audio: bytes) -> None:
    check_headerless(audio, Encoding.LINEAR16)


def test_random_samples_are_never_taken_for_a_file() -> None:
    random = np.random.default_rng(5)
    for _ in range(2000):
        check_headerless(random.bytes(300), Encoding.LINEAR16)


@pytest.mark.parametrize(
    "audio",
    [
        ID3[:6] + bytes(4) + (ID3[:6] + bytes(4)) * 1_000_000,
        WAV + b"PK\x05\x06" * 1_000_000,
        b"\x00\x00\x00\x08free" * 1_000_000,
        b"\xff\xfb\x90" * 1_000_000,
    ],
)
def test_only_a_bounded_part_is_read(audio: bytes) -> None:
    """Measured in bytes read, not in seconds: less than a quarter of a MiB."""
    assert read_by(audio) < 1 << 18


def read_by(audio: bytes) -> int:
    tracemalloc.start()
    try:
        with contextlib.suppress(InvalidArgumentError):
            sniff(audio)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
