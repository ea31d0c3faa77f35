"""The containers that are decoded, and how they are recognised."""

from __future__ import annotations

from typing import Final

from aligner_svc.audio.headers.mpeg import has_frames, skip_id3
from aligner_svc.audio.headers.sphere import MAGIC

ACCEPTED: Final = "WAV, FLAC, MP3, Ogg (Opus, Vorbis), MP4/M4A, WebM, AAC, AIFF, CAF, AU, AMR, WMA, WavPack, AC-3 or NIST SPHERE"

# magic at byte 0 -> libav demuxer
_MAGICS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"caff", "caf"),
    (b".snd", "au"),
    (b"#!AMR", "amr"),
    (b"wvpk", "wv"),
    (MAGIC, "nistsphere"),
    (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "asf"),
    (bytes.fromhex("726966662e91cf11a5d628db04c10000"), "w64"),
)

# (magic at byte 0, form type at byte 8) -> libav demuxer
_FORMS: Final[dict[tuple[bytes, bytes], str]] = {
    **{(magic, b"WAVE"): "wav" for magic in (b"RIFF", b"RIFX", b"RF64", b"BW64")},
    (b"FORM", b"AIFF"): "aiff",
    (b"FORM", b"AIFC"): "aiff",
}

# Without `styp`, `sidx` and `moof`: they start a segment of a stream, which cannot be decoded without the first one.
_MOV_ATOMS: Final = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")

# ISO base media brands (https://mp4ra.org/registered-types/brands) that are not decoded, and what they are.
# All others go to libav: new brands for the same boxes appear every year.
_BRANDS: Final[dict[bytes, str]] = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "a HEIC or AVIF image"),
    **dict.fromkeys((b"mif1", b"mif2", b"msf1", b"miaf", b"avif", b"avis", b"avci", b"avcs"), "a HEIC or AVIF image"),
    **dict.fromkeys((b"j2ki", b"j2is", b"jpeg", b"jpgs"), "a HEIC or AVIF image"),
    **dict.fromkeys((b"jp2 ", b"jpx ", b"jpm ", b"jph "), "a JPEG 2000 image"),
    b"jxl ": "a JPEG XL image",
    b"crx ": "a Canon raw image",
    **dict.fromkeys((b"aax ", b"aaxc"), "a protected Audible book"),
}

NAMES: Final[dict[str, str]] = {
    "aac": "AAC audio",
    "ac3": "AC-3 audio",
    "aiff": "an AIFF file",
    "amr": "an AMR file",
    "asf": "a WMA file",
    "au": "an AU file",
    "caf": "a CAF file",
    "flac": "a FLAC file",
    "matroska": "a WebM or Matroska file",
    "mov": "an MP4 file",
    "mp3": "an MP3 file",
    "nistsphere": "a NIST SPHERE file",
    "ogg": "an Ogg file",
    "w64": "a W64 file",
    "wav": "a WAV file",
    "wv": "a WavPack file",
}
"""What people call the files of each demuxer."""

_MAX_PADDING: Final = 1 << 16
"""Bytes of zeros after an ID3 tag: some taggers shrink a tag without updating its size."""

_SEARCHED: Final = 1 << 14
"""Bytes searched for a frame after ID3 tags. Encoders start with one; a cut leaves part of one, 2881 bytes at most."""


def by_magic(head: bytes) -> str | None:
    """The demuxer whose magic number `head` starts with."""
    if form := _FORMS.get((head[:4], head[8:12])):
        return form
    if _is_matroska(head):
        return "matroska"
    if _is_mov(head):
        return "mov"
    if _is_ac3(head):
        return "ac3"
    return next((container for magic, container in _MAGICS if head.startswith(magic)), None)


def by_frames(head: bytes) -> str | None:
    """AAC or MP3, which have no magic number, only frames that follow each other."""
    if _is_adts(head):
        return "aac"
    return "mp3" if has_frames(head) else None


def by_tags(view: memoryview) -> tuple[str | None, str]:
    """The demuxer for what follows the ID3 tags at the start, or None and what the upload is instead."""
    at = skip_id3(view)
    if at >= view.nbytes:
        return None, "an ID3 tag that claims to be longer than the file" if at > view.nbytes else "an ID3 tag without audio"
    if skip_id3(view[at:]):
        return None, "a pile of ID3 tags"
    rest = bytes(view[at : at + _MAX_PADDING]).lstrip(b"\0")[:_SEARCHED]
    return "flac" if rest.startswith(b"fLaC") else by_frames(rest), "an ID3 tag that no MPEG audio follows"


def brand(head: bytes) -> str | None:
    """What a file in MP4's boxes is, if it is no MP4."""
    return _BRANDS.get(head[8:12]) if head[4:8] == b"ftyp" else None


def _is_matroska(head: bytes) -> bool:
    """EBML is as generic as XML: the DocType says what is in it. If none is in sight, libav decides."""
    if not head.startswith(b"\x1aE\xdf\xa3"):
        return False
    at = head.find(b"B\x82", 4, 64)
    return at < 0 or head[at + 3 :].startswith((b"webm", b"matroska"))


def _is_mov(head: bytes) -> bool:
    """MP4, M4A, M4B, 3GP, QuickTime: a known box of a valid size, and not one of the images that share the boxes."""
    size = int.from_bytes(head[:4], "big")
    return head[4:8] in _MOV_ATOMS and (size in {0, 1} or size >= 8) and brand(head) is None


def _is_ac3(head: bytes) -> bool:
    """AC-3 and E-AC-3 (ETSI TS 102 366): two sync bytes happen by chance, so reserved codes rule it out."""
    if not head.startswith(b"\x0bw"):
        return False
    if len(head) < 6:
        return True
    bitstream = head[5] >> 3
    return bitstream <= 16 and (bitstream > 10 or (head[4] >> 6 != 3 and head[4] & 63 < 38))


def _is_adts(head: bytes) -> bool:
    """Sync word with layer 0, a valid sampling frequency, a frame longer than its header, a second frame after it."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or (head[2] >> 2) & 15 > 12:
        return False
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    following = head[size : size + 2]
    return size > 7 and (len(following) < 2 or (following[0] == 0xFF and following[1] & 0xF6 == 0xF0))
