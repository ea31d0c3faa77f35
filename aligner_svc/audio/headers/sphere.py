"""NIST SPHERE, the format of many speech corpora (TIMIT, Switchboard, WSJ): a header of text, then samples.

https://www.isip.piconepress.com/projects/speech/software/tutorials/production/fundamentals/v1.0/section_02/s02_01_p04.html. libav
reads 8-bit PCM wrongly, refuses 24 bits, and takes whatever follows for samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAGIC: Final = b"NIST_1A\n"

_LINE: Final = 16
"""Bytes of the magic number and the length of the header, each with a line end."""

_MAX_HEADER: Final = 1 << 16

_CODINGS: Final = {"pcm": "pcm", "ulaw": "mulaw", "mu-law": "mulaw", "mulaw": "mulaw", "alaw": "alaw", "a-law": "alaw"}


@dataclass(frozen=True, slots=True)
class SphereHeader:
    """`demuxer`: libav's for its bare samples, "" if there is none. `coding`: as the header has it, "pcm" by default.

    `start`: where the samples start (bytes), `frame`: bytes of one sample of all channels; `samples` a channel, 0: unknown.
    """

    coding: str
    demuxer: str
    channels: int
    rate: int
    start: int
    frame: int
    samples: int


def read_sphere_header(data: memoryview) -> SphereHeader | None:
    """The header; None if it is broken."""
    first = bytes(data[:_LINE])
    length = first[len(MAGIC) :].strip()
    if not first.startswith(MAGIC) or not length.isdigit() or not _LINE < int(length) <= _MAX_HEADER:
        return None
    fields = _fields(bytes(data[_LINE : int(length)]).decode("latin-1"))
    channels, rate = _number(fields.get("channel_count"), 1), _number(fields.get("sample_rate"), 16_000)
    coding = fields.get("sample_coding", "pcm").lower()
    name = _CODINGS.get(coding, "")
    width = _number(fields.get("sample_n_bytes"), 1 if name in {"mulaw", "alaw"} else 2)
    if name == "pcm":
        name = _pcm(width, fields.get("sample_byte_format", "01"))
    elif width != 1:
        name = ""
    return SphereHeader(coding, name, channels, rate, int(length), width * channels, _number(fields.get("sample_count"), 0))


def _fields(text: str) -> dict[str, str]:
    """`name -i 16000`, `name -r 0.5` or `name -s4 text`, a line each, up to `end_head`; `;` begins a comment."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(None, 2)
        if parts[:1] == ["end_head"]:
            break
        if len(parts) == 3 and parts[1].startswith("-"):
            fields[parts[0]] = parts[2].split(";")[0].strip()
    return fields


def _number(text: str | None, default: int) -> int:
    """A number as it is written, 16000 or 16000.0; 0, which no check lets pass, if it is none."""
    if text is None:
        return default
    whole, _, fraction = text.partition(".")
    return int(whole) if whole.isascii() and whole.isdigit() and len(whole) < 12 and not fraction.strip("0") else 0


def _pcm(width: int, order: str) -> str:
    """`order` gives the significance of each byte: "01" is little-endian, "10" big-endian, "1" a single byte."""
    if width == 1:
        return "s8"
    if width not in {2, 3, 4}:
        return ""
    return f"s{8 * width}{'be' if order[:1] != '0' else 'le'}"
