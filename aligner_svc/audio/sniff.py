"""What a file is, by its first bytes: a container we decode, or something else with a name.

libav's own probing is never used: it also finds playlists, which make it open other files and URLs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aligner_svc.audio.mpeg import has_frames, skip_id3
from aligner_svc.errors import InvalidArgumentError

ACCEPTED: Final = "WAV, FLAC, MP3, Ogg (Opus, Vorbis), MP4/M4A, WebM, AAC, AIFF, CAF, AU, AMR, WMA, WavPack or AC-3"

_HEAD: Final = 4096
"""Bytes looked at: enough for every magic number and for three MP3 frames."""

# magic at byte 0 -> libav demuxer
_CONTAINERS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"caff", "caf"),
    (b".snd", "au"),
    (b"#!AMR", "amr"),
    (b"wvpk", "wv"),
    (b"\x0bw", "ac3"),
    (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "asf"),
    (bytes.fromhex("726966662e91cf11a5d628db04c10000"), "w64"),
)

# (magic at byte 0, form type at byte 8) -> libav demuxer
_FORMS: Final[dict[tuple[bytes, bytes], str]] = {
    (b"RIFF", b"WAVE"): "wav",
    (b"RIFX", b"WAVE"): "wav",
    (b"RF64", b"WAVE"): "wav",
    (b"BW64", b"WAVE"): "wav",
    (b"FORM", b"AIFF"): "aiff",
    (b"FORM", b"AIFC"): "aiff",
}

_MOV_ATOMS: Final = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")

_IMAGE_BRANDS: Final = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis")

# (offset, magic, what a person calls it); the first that fits
_REFUSED: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"MM\x00*", "a TIFF image"),
    (4, b"jP  ", "a JPEG 2000 image"),
    (0, b"8BPS", "a Photoshop image"),
    (0, b"\x00\x00\x01\x00", "an icon"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"{\\rtf", "an RTF document"),
    (0, b"\xd0\xcf\x11\xe0", "a Microsoft Office document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"PK\x05\x06", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ", "an xz archive"),
    (0, b"(\xb5/\xfd", "a Zstandard archive"),
    (0, b"7z\xbc\xaf", "a 7-Zip archive"),
    (0, b"Rar!", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x7fELF", "an executable (ELF)"),
    (0, b"MZ", "an executable (Windows)"),
    (0, b"\xfe\xed\xfa", "an executable (Mach-O)"),
    (0, b"\xcf\xfa\xed\xfe", "an executable (Mach-O)"),
    (0, b"\xca\xfe\xba\xbe", "a Java class or an executable (Mach-O)"),
    (0, b"\x00asm", "a WebAssembly module"),
    (0, b"SQLite format 3", "an SQLite database"),
    (8, b"AVI ", "an AVI video"),
    (0, b"FLV\x01", "a Flash video"),
    (0, b"\x00\x00\x01\xba", "an MPEG program stream"),
    (0, b"MThd", "a MIDI file"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"TTA1", "True Audio"),
    (0, b"DSD ", "DSD audio"),
    (0, b"MPCK", "Musepack audio"),
    (0, b"MP+", "Musepack audio"),
    (0, b".RMF", "a RealMedia file"),
    (0, b".ra\xfd", "RealAudio"),
    (0, b"NIST_1A", "a NIST SPHERE file"),
    (0, b"ajkg", "Shorten audio"),
    (0, b"BM", "a BMP image"),
    (0, b"#EXTM3U", "an M3U or HLS playlist"),
    (0, b"ffconcat", "an ffconcat playlist"),
    (0, b"[playlist]", "a PLS playlist"),
    (0, b"#!", "a script"),
    (0, b"WEBVTT", "WebVTT subtitles"),
    (0, b"<?xml", "an XML document"),
    (0, b"<svg", "an SVG image"),
    (0, b"<!doctype html", "an HTML page"),
    (0, b"<html", "an HTML page"),
    (0, b"{", "JSON or other text"),
)

_OTHER_AUDIO: Final = frozenset(
    {
        "Monkey's Audio",
        "True Audio",
        "DSD audio",
        "Musepack audio",
        "RealAudio",
        "a NIST SPHERE file",
        "Shorten audio",
        "a RealMedia file",
    }
)


def sniff(audio: bytes | bytearray | memoryview) -> str:
    """The libav demuxer for `audio`, out of an allow-list.

    Raises InvalidArgumentError(AUDIO_EMPTY) for no bytes, (AUDIO_UNSUPPORTED) with a name for what it is otherwise.
    """
    view = memoryview(audio).cast("B")
    if not view.nbytes:
        raise InvalidArgumentError("AUDIO_EMPTY", "no audio was sent", field="audio")
    head = bytes(view[:_HEAD])
    for guess in _GUESSES:
        if container := guess(head, view):
            return container
    raise InvalidArgumentError("AUDIO_UNSUPPORTED", _describe(head), field="audio")


def _by_magic(head: bytes, _: memoryview) -> str | None:
    if form := _FORMS.get((head[:4], head[8:12])):
        return form
    return next((container for magic, container in _CONTAINERS if head.startswith(magic)), None)


def _mov(head: bytes, _: memoryview) -> str | None:
    """MP4, M4A, M4B, 3GP, QuickTime; not the image formats that share their boxes."""
    if head[4:8] not in _MOV_ATOMS or (head[4:8] == b"ftyp" and head[8:12] in _IMAGE_BRANDS):
        return None
    return "mov"


def _tagged(head: bytes, view: memoryview) -> str | None:
    """ID3 tags stand before MP3, but also before FLAC and AAC."""
    if not head.startswith(b"ID3"):
        return None
    rest = bytes(view[skip_id3(view) :][:_HEAD])
    if rest.startswith(b"fLaC"):
        return "flac"
    return "aac" if _is_adts(rest) else "mp3"


def _bare_frames(head: bytes, _: memoryview) -> str | None:
    if _is_adts(head):
        return "aac"
    return "mp3" if has_frames(head) else None


_GUESSES: Final[tuple[Callable[[bytes, memoryview], str | None], ...]] = (_by_magic, _mov, _tagged, _bare_frames)


def _is_adts(head: bytes) -> bool:
    """Sync word with layer 0, a sampling frequency that exists, a frame longer than its header, a second frame after it."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or (head[2] >> 2) & 15 > 12:
        return False
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    following = head[size : size + 2]
    return size > 7 and (len(following) < 2 or (following[0] == 0xFF and following[1] & 0xF6 == 0xF0))


def _describe(head: bytes) -> str:
    lowered = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    for offset, magic, name in _REFUSED:
        if head[offset : offset + len(magic)] == magic or (offset == 0 and magic.isascii() and lowered.startswith(magic.lower())):
            return f"this is {name}{_instead(name)}"
    if head[4:8] == b"ftyp":
        return f"this is a HEIC or AVIF image{_instead('')}"
    if _is_text(head):
        return f"this is text{_instead('')}"
    return f"this is no audio format known here: send {ACCEPTED}, or set config.encoding for audio without a header"


def _instead(name: str) -> str:
    return f", which is not supported: send {ACCEPTED}" if name in _OTHER_AUDIO else f", not audio: send {ACCEPTED}"


def _is_text(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16's byte order mark
        return True
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not just a character cut by the end of the head
            return False
        text = head[: error.start].decode()
    return all(c.isprintable() or c.isspace() for c in text)
