"""Uploads that are declared headerless but have a header."""

from __future__ import annotations

import re
from typing import Final

from aligner_svc.audio.encoding import Encoding
from aligner_svc.audio.sniff.appended import ends_as_zip
from aligner_svc.audio.sniff.containers import NAMES, by_tags
from aligner_svc.errors import InvalidArgumentError

_HEAD: Final = 64
_ZIP: Final = "a ZIP archive, by its end"

# Samples may be any bytes, so only patterns of 48 bits or more count: of random uploads fewer than one in 10^13 is
# refused for its start, and speech does not start with random bytes. A single MP3 or ADTS frame is too little.
_MAGICS: Final[tuple[tuple[re.Pattern[bytes], str], ...]] = tuple(
    (re.compile(pattern, re.DOTALL), name)
    for pattern, name in (
        (rb"(?:RIFF|RIFX|RF64|BW64)....WAVE", NAMES["wav"]),
        (rb"RIFF....(?:AVI |WEBP)", "an AVI video or a WebP image"),
        (rb"FORM....AIF[FC]", NAMES["aiff"]),
        (rb"fLaC[\x00\x80]\x00\x00\x22", NAMES["flac"]),
        (rb"OggS\x00\x02\x00{8}", NAMES["ogg"]),
        (rb"\x00\x00\x00[\x08-\xff]ftyp[0-9A-Za-z]{2}", NAMES["mov"]),
        (rb"\x1aE\xdf\xa3.{1,40}B\x82.(?:webm|matroska)", NAMES["matroska"]),
        (rb"caff\x00\x01\x00\x00", NAMES["caf"]),
        (rb"\.snd\x00\x00.{6}\x00\x00\x00[\x01-\x1d]", NAMES["au"]),
        (rb"#!AMR(?:-WB)?\n", NAMES["amr"]),
        (re.escape(bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")), NAMES["asf"]),
        (re.escape(bytes.fromhex("726966662e91cf11a5d628db04c10000")), NAMES["w64"]),
        (rb"NIST_1A\n", NAMES["nistsphere"]),
        (rb"\x89PNG\r\n\x1a\n", "a PNG image"),
        (rb"\xff\xd8\xff[\xe0\xe1]..(?:JFIF|Exif)\x00", "a JPEG image"),
        (rb"GIF8[79]a", "a GIF image"),
        (rb"%PDF-[12]\.\d", "a PDF document"),
        (rb"\x7fELF[\x01\x02][\x01\x02]\x01", "an executable (ELF)"),
        (rb"PK\x03\x04[\x0a-\x3f]\x00..[\x00\x08\x09\x0c\x0e\x5d-\x63]\x00", "a ZIP archive"),
        (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
        (rb"Rar!\x1a\x07[\x00\x01]", "a RAR archive"),
    )
)

# Version 2 to 4, flags that exist, a size of four times seven bits: 38 bits, and audio must follow the tag.
_ID3: Final = re.compile(rb"ID3[\x02-\x04][^\xff][\x00\x10\x20\x40\x50\x60\x70\x80-\xf0][\x00-\x7f]{4}", re.DOTALL)


def check_headerless(audio: bytes | bytearray | memoryview, encoding: Encoding) -> None:
    """Raise InvalidArgumentError (ENCODING_MISMATCH) for a file with a header that is declared to be bare samples."""
    name = _name(memoryview(audio).cast("B"))
    if name:
        raise _mismatch(name, encoding)


def check_tail(tail: bytes, encoding: Encoding) -> None:
    """The same for the last bytes of samples that were not kept."""
    if ends_as_zip(memoryview(tail)):
        raise _mismatch(_ZIP, encoding)


def _mismatch(name: str, encoding: Encoding) -> InvalidArgumentError:
    message = f"config.encoding says {encoding.value}, samples without a header, but this is {name}"
    hint = ": leave config.encoding out" if name.rpartition(" ")[2] in {"file", "audio"} else ""
    return InvalidArgumentError("ENCODING_MISMATCH", message + hint, field="config.encoding")


def _name(view: memoryview) -> str | None:
    head = bytes(view[:_HEAD])
    for magic, name in _MAGICS:
        if magic.match(head):
            return name
    if _ID3.match(head) and (container := by_tags(view)[0]):
        return NAMES[container]
    return _ZIP if ends_as_zip(view) else None
