"""Files of other kinds, by themselves and joined with audio."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from functools import cache
from typing import Final

from tests.hostile.hostile import DECODED, Hostile, hostile
from tests.hostile.pcm import chunk, fmt, noise, riff, wav

UNSUPPORTED, POLYGLOT = "AUDIO_UNSUPPORTED", "AUDIO_POLYGLOT"


def png() -> bytes:
    def part(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (1).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"\0\0")) + part(b"IEND", b"")


def zipped(comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("evil.sh"), b"#!/bin/sh\n")
        archive.comment = comment
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.wav"), io.BytesIO())
    return buffer.getvalue()


@cache
def gzip_bomb() -> bytes:
    """100 MiB of zeros."""
    return gzip.compress(bytes(100 << 20), mtime=0)


def windows_program() -> bytes:
    return b"MZ" + bytes(58) + (64).to_bytes(4, "little") + b"PE\0\0" + bytes(200)


def elf() -> bytes:
    return b"\x7fELF\x02\x01\x01" + bytes(200)


def wav_as_tar() -> bytes:
    """A WAV whose first chunk puts tar's magic where tar wants it."""
    filler = bytes(257 - 20) + b"ustar\x0000" + bytes(255)
    return riff(chunk(b"junk", filler), fmt(), chunk(b"data", noise()))


def wav_with_pdf() -> bytes:
    return riff(chunk(b"junk", b"%PDF-1.7\n1 0 obj\n"), fmt(), chunk(b"data", noise()))


M3U: Final = b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nfile:///etc/passwd\nhttp://169.254.169.254/latest/\n"
CONCAT: Final = b"ffconcat version 1.0\nfile '/etc/passwd'\nfile 'http://169.254.169.254/'\n"
XSPF: Final = b'<?xml version="1.0"?>\n<playlist xmlns="http://xspf.org/ns/0/"><trackList/></playlist>'
SVG: Final = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>'
BILLION_LAUGHS: Final = b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;">]><lolz>&b;</lolz>'
DASH: Final = b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>'

FOREIGN: Final[dict[str, Hostile]] = {
    "an HLS playlist": hostile(lambda: M3U, UNSUPPORTED, says="an M3U or HLS playlist"),
    "ffconcat": hostile(lambda: CONCAT, UNSUPPORTED, says="an ffconcat playlist"),
    "a PLS playlist": hostile(lambda: b"[playlist]\nFile1=file:///etc/passwd\n", UNSUPPORTED, says="a PLS playlist"),
    "an XSPF playlist": hostile(lambda: XSPF, UNSUPPORTED, says="an XSPF playlist"),
    "a DASH manifest": hostile(lambda: DASH, UNSUPPORTED, says="a DASH manifest"),
    "an SDP description": hostile(lambda: b"v=0\r\no=- 0 0 IN IP4 10.0.0.1\r\n", UNSUPPORTED, says="an SDP"),
    "a billion laughs": hostile(lambda: BILLION_LAUGHS, UNSUPPORTED, says="an XML document"),
    "an SVG with a script": hostile(lambda: SVG, UNSUPPORTED, says="an SVG image"),
    "HTML": hostile(lambda: b"\n<!doctype HTML><script>1</script>", UNSUPPORTED, says="an HTML page"),
    "a script": hostile(lambda: b"#!/bin/sh\nrm -rf /\n", UNSUPPORTED, says="a script"),
    "a PHP script": hostile(lambda: b"<?php system($_GET[0]); ?>", UNSUPPORTED, says="a script"),
    "a PNG": hostile(png, UNSUPPORTED, says="a PNG image"),
    "a ZIP": hostile(zipped, UNSUPPORTED, says="a ZIP archive"),
    "a tar": hostile(tarred, UNSUPPORTED, says="a tar archive"),
    "a gzip bomb": hostile(gzip_bomb, UNSUPPORTED, says="a gzip archive"),
    "a bzip2": hostile(lambda: b"BZh91AY&SY" + bytes(50), UNSUPPORTED, says="a bzip2 archive"),
    "an ELF": hostile(elf, UNSUPPORTED, says="an executable (ELF)"),
    "a Windows program": hostile(windows_program, UNSUPPORTED, says="an executable (Windows)"),
    "a Mach-O": hostile(lambda: b"\xcf\xfa\xed\xfe\x07\0\0\1" + bytes(50), UNSUPPORTED, says="an executable (Mach-O)"),
    "a font": hostile(lambda: b"wOFF\0\1\0\0" + bytes(50), UNSUPPORTED, says="a font (WOFF)"),
    "an AVI": hostile(lambda: b"RIFF\0\1\0\0AVI LIST" + bytes(200), UNSUPPORTED, says="an AVI video"),
    "a HEIC": hostile(lambda: b"\0\0\0\x18ftypheic" + bytes(50), UNSUPPORTED, says="a HEIC or AVIF image"),
    "MP3 frames behind a program": hostile(
        lambda: windows_program() + (b"\xff\xfb\x90\x00" + bytes(413)) * 8, UNSUPPORTED, says="an executable (Windows)"
    ),
    "MP3 frames behind a PNG": hostile(lambda: png() + (b"\xff\xfb\x90\x00" + bytes(413)) * 8, UNSUPPORTED, says="a PNG image"),
    "wav + zip": hostile(lambda: wav() + zipped(), POLYGLOT, says="a ZIP archive"),
    "wav + zip in a chunk": hostile(
        lambda: riff(fmt(), chunk(b"data", noise()), chunk(b"junk", zipped())), POLYGLOT, says="a ZIP archive"
    ),
    "wav + zip with a comment of 64 KB": hostile(lambda: wav() + zipped(bytes(65_535)), POLYGLOT, says="a ZIP archive"),
    "wav + zip behind decoys": hostile(lambda: wav() + zipped(b"PK\5\6" + bytes(18)), POLYGLOT, says="a ZIP archive"),
    "wav + zip behind a thousand decoys": hostile(lambda: wav() + zipped(b"PK\5\6" * 1000), POLYGLOT, says="a ZIP archive"),
    "wav + program": hostile(lambda: wav() + windows_program(), POLYGLOT, says="an executable (Windows)"),
    "wav + ELF behind padding": hostile(lambda: wav() + bytes(500) + elf(), POLYGLOT, says="an executable (ELF)"),
    "wav + PDF": hostile(lambda: wav() + b"%PDF-1.7\n", POLYGLOT, says="a PDF document"),
    "wav + HTML": hostile(lambda: wav() + b"<html><script>1</script>", POLYGLOT, says="an HTML page"),
    "wav as PDF": hostile(wav_with_pdf, POLYGLOT, says="a PDF document"),
    "wav as tar": hostile(wav_as_tar, POLYGLOT, says="a tar archive"),
    "wav + noise": hostile(lambda: wav() + noise(), DECODED),
    "wav + wav": hostile(lambda: wav() + wav(), DECODED),
    "wav + an empty ZIP record": hostile(lambda: wav() + b"PK\5\6" + bytes(18), DECODED, POLYGLOT),
}
