"""What stands behind ID3v2 tags: https://id3.org/id3v2.4.0-structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aligner_svc.audio.sniff.containers import by_frames

_MAX_TAGS: Final = 16
"""Programs that prepend a tag without looking leave two or three. A tag may be 10 bytes long: an upload of nothing else
would hold up the event loop for a second for every 10 MiB."""

_PADDING: Final = 1 << 16
"""Bytes of zeros behind a tag, at most: some taggers shrink a tag and forget to say so."""

_BEHIND: Final = 1 << 14
"""Bytes looked through for a first frame. Encoders start with one; a cut in the middle leaves a frame, 2881 bytes at most."""


@dataclass(frozen=True, slots=True)
class Tagged:
    """`container` is a libav demuxer."""

    container: str


def behind_tags(view: memoryview) -> Tagged | str:
    """The container behind the tags at the start, or what this is instead."""
    at = 0
    for _ in range(_MAX_TAGS):
        size = _tag_bytes(bytes(view[at : at + 10]))
        if not size:
            break
        at += size
    else:
        return "a pile of ID3 tags"
    if at >= view.nbytes:
        return "an ID3 tag that claims to be longer than the file" if at > view.nbytes else "an ID3 tag without audio"
    rest = bytes(view[at : at + _PADDING]).lstrip(b"\0")[:_BEHIND]
    if rest.startswith(b"fLaC"):
        return Tagged("flac")
    container = by_frames(rest)
    return Tagged(container) if container else "an ID3 tag that no MPEG audio follows"


def _tag_bytes(header: bytes) -> int:
    """Length of the tag with its header and footer; 0 when this is no tag. Sizes have seven bits to a byte."""
    if len(header) < 10 or not header.startswith(b"ID3"):
        return 0
    size = 0
    for byte in header[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if header[5] & 0x10 else 0)
