"""What follows the ID3v2 tags at the start of a file."""

from __future__ import annotations

from typing import Final

from aligner_svc.audio.mpeg import skip_id3
from aligner_svc.audio.sniff.containers import by_frames

_MAX_PADDING: Final = 1 << 16
"""Bytes of zeros after a tag: some taggers shrink a tag without updating its size."""

_SEARCHED: Final = 1 << 14
"""Bytes searched for a first frame. Encoders start with one; a cut in the middle leaves part of a frame, 2881 bytes at most."""


def behind_tags(view: memoryview) -> tuple[str | None, str]:
    """The libav demuxer for what follows the tags, or None and what the upload is instead."""
    at = skip_id3(view)
    if at >= view.nbytes:
        return None, "an ID3 tag that claims to be longer than the file" if at > view.nbytes else "an ID3 tag without audio"
    if skip_id3(view[at:]):
        return None, "a pile of ID3 tags"
    rest = bytes(view[at : at + _MAX_PADDING]).lstrip(b"\0")[:_SEARCHED]
    return "flac" if rest.startswith(b"fLaC") else by_frames(rest), "an ID3 tag that no MPEG audio follows"
