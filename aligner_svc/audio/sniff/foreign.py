"""Names for what is not decoded, so that the error says "a PNG image" and not "unknown"."""

from __future__ import annotations

import re
from typing import Final

import filetype  # type: ignore[import-untyped]

from aligner_svc.audio.headers.sphere import read_sphere_header
from aligner_svc.audio.sniff.containers import ACCEPTED, brand

_EXECUTABLE: Final = "an executable (Windows)"

# Tables of (offset, magic or several, name). These are of 24 bits and more, which audio does not hold there by chance.
_OTHER_AUDIO: Final[tuple[tuple[int, bytes | tuple[bytes, ...], str], ...]] = (
    (0, b"MAC \x96\x0f", "Monkey's Audio"),
    (0, b"TTA1", "True Audio"),
    (0, (b"DSD ", b"FRM8"), "DSD audio"),
    (0, (b"MPCK", b"MP+\x07"), "Musepack audio"),
    (0, b".RMF", "a RealMedia file"),
    (0, b".ra\xfd", "RealAudio"),
    (0, b"ajkg", "Shorten audio"),
    (8, b"8SVX", "8SVX audio"),
)
_CERTAIN: Final[tuple[tuple[int, bytes | tuple[bytes, ...], str], ...]] = (
    *_OTHER_AUDIO,
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (0, (b"II*\x00", b"MM\x00*"), "a TIFF image"),
    (4, b"jP  ", "a JPEG 2000 image"),
    (4, b"JXL ", "a JPEG XL image"),
    (0, b"8BPS", "a Photoshop image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"{\\rtf", "an RTF document"),
    (0, b"\xd0\xcf\x11\xe0", "a Microsoft Office document"),
    (0, (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"), "a ZIP archive"),
    (0, b"\x1f\x8b\x08", "a gzip archive"),
    (0, b"\xfd7zXZ", "an xz archive"),
    (0, b"(\xb5/\xfd", "a Zstandard archive"),
    (0, b"\x04\x22\x4d\x18", "an LZ4 archive"),
    (0, b"7z\xbc\xaf", "a 7-Zip archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"MSCF\x00", "a Windows cabinet"),
    (0, b"xar!", "a XAR archive"),
    (0, b"!<arch>", "an ar archive or Debian package"),
    (0, b"\xed\xab\xee\xdb", "an RPM package"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x7fELF", "an executable (ELF)"),
    (0, (b"\xfe\xed\xfa", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe"), "an executable (Mach-O)"),
    (0, b"\xca\xfe\xba\xbe", "a Java class or an executable (Mach-O)"),
    (0, b"dex\n", "an Android executable"),
    (0, b"\x00asm", "a WebAssembly module"),
    (0, b"L\x00\x00\x00\x01\x14\x02\x00", "a Windows shortcut"),
    (0, b"SQLite format 3", "an SQLite database"),
    (8, b"AVI ", "an AVI video"),
    (0, b"FLV\x01", "a Flash video"),
    (0, b"\x00\x00\x01\xba", "an MPEG program stream"),
    (0, b"MThd", "a MIDI file"),
    (8, b"RMID", "a MIDI file"),
    (8, b"sfbk", "a SoundFont"),
    (8, b"ACON", "an animated cursor"),
)

# Magics so short that they count only once it is clear that the bytes are no audio.
_LIKELY: Final[tuple[tuple[bytes, str], ...]] = (
    (b"MZ", _EXECUTABLE),
    (b"BM", "a BMP image"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"#!", "a script"),
    (b"BZh", "a bzip2 archive"),
    (b"\x1f\x9d", "a compress archive"),
    (b"MAC ", "Monkey's Audio"),
    (b"MP+", "Musepack audio"),
    (b"\x1aE\xdf\xa3", "an EBML document"),
    (b"RIFF", "a RIFF file of another kind"),
    (b"FORM", "an IFF file of another kind"),
    (b"ID3", "an ID3 tag"),
)

# Starts of text, in any case, after a byte order mark and blanks.
_TEXTS: Final[tuple[tuple[bytes | tuple[bytes, ...], str], ...]] = (
    ((b"#extm3u", b"#ext-x-"), "an M3U or HLS playlist"),
    (b"ffconcat", "an ffconcat playlist"),
    (b"[playlist]", "a PLS playlist"),
    (b"<asx", "an ASX playlist"),
    (b"<smil", "a SMIL playlist"),
    (b"<wpl", "a WPL playlist"),
    (b"v=0\r\n", "an SDP session description"),
    (b";ffmetadata", "an ffmetadata file"),
    (b"#!amr", "an AMR file with a broken magic number"),
    ((b"#!/", b"#! /", b"<?php", b"@echo off"), "a script"),
    (b"webvtt", "WebVTT subtitles"),
    (b"<svg", "an SVG image"),
    ((b"<!doctype html", b"<html", b"<script"), "an HTML page"),
    (b"<playlist", "an XSPF playlist"),
    (b"<mpd", "a DASH manifest"),
)

# XML is named by its first element, with or without a namespace prefix.
_ELEMENT: Final = re.compile(rb"<(?:[a-z0-9]+:)?(svg|playlist|html|smil|asx|mpd|rss|plist)\b")
_ELEMENTS: Final[dict[bytes, str]] = {
    b"svg": "an SVG image",
    b"playlist": "an XSPF playlist",
    b"html": "an HTML page",
    b"smil": "a SMIL playlist",
    b"asx": "an ASX playlist",
    b"mpd": "a DASH manifest",
    b"rss": "an RSS feed",
    b"plist": "a property list",
}

_SHORTENED: Final = "a NIST SPHERE file compressed with Shorten (sph2pipe and SoX expand it)"
_OTHER_SPHERE: Final = "a NIST SPHERE file in a coding other than PCM, mu-law and A-law"

_OTHER_AUDIO_NAMES: Final = frozenset({
    "a protected Audible book", _SHORTENED, _OTHER_SPHERE, *(name for _, _, name in _OTHER_AUDIO)
})  # fmt: skip

# What filetype recognises by two or three bytes only: a stream cut in the middle may well start with them.
_DOUBTFUL: Final = frozenset({"bmp", "exe", "Z", "ps", "br", "jxr", "ico", "swf", "aac", "mp3"})


def certain(data: bytes) -> str | None:
    """What `data` is by its first bytes, if it cannot be audio; None does not mean that it is."""
    for offset, magic, name in _CERTAIN:
        if data.startswith(magic, offset):
            return name
    if image := brand(data):
        return image
    return _EXECUTABLE if _is_pe(data) else _as_text(data)


def sphere_coding(view: memoryview) -> str | None:
    """What a NIST SPHERE file is whose samples are not read; None if they are, or if its header is broken."""
    header = read_sphere_header(view)
    if header is None or header.demuxer:
        return None
    return _SHORTENED if "shorten" in header.coding else _OTHER_SPHERE


def inside(head: bytes) -> str | None:
    """What `head` is to readers that search beyond the first byte: PDF's search the first KiB."""
    if head.find(b"%PDF-", 0, 1024 + 5) > 0:
        return "a PDF document"
    return next((name for offset, magic, name in _CERTAIN if offset > 16 and head.startswith(magic, offset)), None)


def second_opinion(head: bytes) -> str | None:
    """What the `filetype` library recognises, unless that is audio, a film or a guess from two bytes."""
    kind = filetype.guess(head)
    if kind is None or kind.extension in _DOUBTFUL or kind.mime.startswith(("audio/", "video/")):
        return None
    # The name is made of the library's own constants, not of the upload: "an image (XCF)".
    family = "an image" if kind.mime.startswith("image/") else "a font" if "font" in kind.mime else "a document or archive"
    return f"{family} ({kind.extension.upper()})"


def describe(head: bytes) -> str:
    """The error message for an upload that is not decoded."""
    name = certain(head)
    if name is None and _is_text(head):  # before the short magic numbers: "BMW" is no image
        name = "JSON or other text" if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"[")) else "text"
    name = name or next((name for magic, name in _LIKELY if head.startswith(magic)), None) or second_opinion(head)
    if name:
        return refusal(name)
    return f"this is no audio format known here: send {ACCEPTED}, or set config.encoding for audio without a header"


def refusal(name: str) -> str:
    """The error message for a file called `name`: what it is and what to send."""
    return f"this is {name}, {'which is not supported' if name in _OTHER_AUDIO_NAMES else 'not audio'}: send {ACCEPTED}"


def _as_text(data: bytes) -> str | None:
    lowered = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if lowered.startswith(b"<?xml"):
        element = _ELEMENT.search(lowered)
        return _ELEMENTS[element[1]] if element else "an XML document"
    return next((name for magic, name in _TEXTS if lowered.startswith(magic)), None)


def _is_pe(data: bytes) -> bool:
    """MZ and, where it points to, the header of a Windows program (DOS programs have none)."""
    at = int.from_bytes(data[0x3C:0x40], "little")
    return data.startswith(b"MZ") and data[at : at + 2] in {b"PE", b"NE", b"LE", b"LX"}


def _is_text(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16's byte order mark
        return True
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":  # a character cut by the end of the head
            return False
        text = head[: error.start].decode()
    return all(c.isprintable() or c.isspace() for c in text)
