"""Known containers get their demuxer; everything else is called by its name and refused."""

from __future__ import annotations

import pytest

from aligner_svc.audio.sniff import sniff
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
        (b"ID3\x03\x00\x00\x7f\x7f\x7f\x7f", "mp3"),  # a tag that claims 256 MiB
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
        ("ö".encode() * 2047 + b"x" + "ö".encode() * 2, "text"),  # a character cut by the end of what is looked at
        ("hello".encode("utf-16"), "text"),
        (b"MThd\x00\x00\x00\x06", "a MIDI file"),
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
    [(b"MAC \x96\x0f", "Monkey's Audio"), (b"NIST_1A\n   1024\n", "a NIST SPHERE file"), (b"DSD \x1c\x00", "DSD audio")],
)
def test_audio_that_is_not_supported_is_not_called_something_else(head: bytes, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="which is not supported") as caught:
        sniff(head)
    assert name in caught.value.message


@pytest.mark.parametrize("head", [b"\x01\x02\x03\x04", bytes(64), b"\xff" * 5000, MP2_FRAME * 3, b"\x00RIFF"])
def test_bytes_of_no_format_are_told_about_headerless_audio(head: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match=r"config\.encoding") as caught:
        sniff(head)
    assert caught.value.reason == "AUDIO_UNSUPPORTED"


def test_nothing_is_empty() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        sniff(b"")
    assert caught.value.reason == "AUDIO_EMPTY"
