"""Files that hide behind audio: after the end that a container declares, or with their directory at the very end."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from aligner_svc.audio.sniff import foreign

_BEHIND: Final = 4096
"""Bytes looked at behind the declared end."""

_TAIL: Final = 22 + 0xFFFF
"""A ZIP's directory is found from the end: its last record, and a comment of 65535 bytes at most."""

_MAX_RECORDS: Final = 64
"""Ends of ZIP directories looked at. By chance there is one in 65,000 files; more are there to hide one."""

_MAX_BOXES: Final = 256
"""Boxes, chunks or objects on the top level that are stepped over; recordings have about ten."""


def appended(view: memoryview, container: str) -> str | None:
    """What is hidden behind the audio, by name; None if nothing is.

    `container` is the demuxer. FLAC, MP3, AAC, AMR, AC-3 and WavPack declare no end, and what follows them is found if
    it is a ZIP (JAR, APK, office document): programs that open other files look at the first bytes alone.
    """
    find_end = _ENDS.get(container)
    end = find_end(view) if find_end else None
    if end is not None and end < view.nbytes:
        name = foreign.certain(bytes(view[end : end + _BEHIND]).lstrip(b"\0"))
        if name:
            return name
    return "a ZIP archive" if ends_as_zip(view) else None


def ends_as_zip(view: memoryview) -> bool:
    """Whether programs that open ZIP archives find one, whatever is in front of it: APPNOTE.TXT 4.3.16."""
    tail = bytes(view[-_TAIL:])
    at = tail.rfind(b"PK\x05\x06")
    for _ in range(_MAX_RECORDS):
        if at < 0:
            return False
        if len(tail) - at >= 22 and _has_directory(view, tail, at):
            return True
        at = tail.rfind(b"PK\x05\x06", 0, at)
    return True


def _has_directory(view: memoryview, tail: bytes, at: int) -> bool:
    """Whether a directory of the size that the record says stands in front of it; an empty archive has none."""
    entries, size, offset = struct.unpack_from("<HII", tail, at + 10)
    if 0xFFFFFFFF in (size, offset) or entries == 0xFFFF:
        return at >= 20 and tail.startswith(b"PK\x06\x07", at - 20)  # ZIP64's pointer to its own record
    start = view.nbytes - len(tail) + at - size
    return start >= 0 and bytes(view[start : start + 4]) == b"PK\x01\x02"


def _riff(view: memoryview) -> int | None:
    """RIFF, RIFX, RF64 and BW64. Programs that cannot seek back write 0, or more than any file holds."""
    big = bytes(view[:4]) == b"RIFX"
    size = int.from_bytes(view[4:8], "big" if big else "little")
    if size == 0xFFFFFFFF and bytes(view[12:16]) == b"ds64":
        size = int.from_bytes(view[20:28], "little")
    return None if size < 4 else 8 + size + (size & 1)


def _iff(view: memoryview) -> int | None:
    size = int.from_bytes(view[4:8], "big")
    return 8 + size + (size & 1) if size >= 4 else None


def _w64(view: memoryview) -> int | None:
    return int.from_bytes(view[16:24], "little") or None


def _au(view: memoryview) -> int | None:
    offset, size = struct.unpack_from(">II", view, 4) if view.nbytes >= 12 else (0, 0xFFFFFFFF)
    return None if size == 0xFFFFFFFF else offset + size


def _boxes(view: memoryview) -> int | None:
    """MP4: where the first thing stands that is no box, or reaches beyond the file."""
    at = 0
    for _ in range(_MAX_BOXES):
        header = bytes(view[at : at + 16])
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        if len(header) < 8 or size < 8 or at + size > view.nbytes or not _is_name(header[4:8]):
            return at or None
        at += size
    return at


def _is_name(name: bytes) -> bool:
    """Four letters; © is one to QuickTime."""
    return all(32 <= c < 127 or c == 0xA9 for c in name)


def _caf(view: memoryview) -> int | None:
    at = 8
    for _ in range(_MAX_BOXES):
        name, size = bytes(view[at : at + 4]), int.from_bytes(view[at + 4 : at + 12], "big", signed=True)
        if name == b"data" and size == -1:  # to the end of the file, as a recorder leaves it that is switched off
            return None
        if not _is_name(name) or size < 0 or at + 12 + size > view.nbytes:
            return at
        at += 12 + size
    return at


def _asf(view: memoryview) -> int | None:
    at = 0
    for _ in range(_MAX_BOXES):
        size = int.from_bytes(view[at + 16 : at + 24], "little")
        if size < 24 or at + size > view.nbytes:
            return at or None
        at += size
    return at


def _matroska(view: memoryview) -> int | None:
    """Behind the segment, if it says how long it is; live recordings do not."""
    header = _element_size(view, 4)
    if header is None:
        return None
    at = header
    if bytes(view[at : at + 4]) != b"\x18S\x80g":
        return at
    return _element_size(view, at + 4)


def _element_size(view: memoryview, at: int) -> int | None:
    """Where the element ends whose size stands at `at`; None for unknown."""
    first = view[at] if at < view.nbytes else 0
    length = 9 - first.bit_length()
    if not first or length > 8:
        return None
    value = int.from_bytes(view[at : at + length], "big") & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else at + length + value


def _ogg(view: memoryview) -> int | None:
    """Behind the last page, if that is near the end: its lacing values add up to its length (RFC 3533)."""
    start = max(0, view.nbytes - (1 << 16))
    tail = bytes(view[start:])
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27:
        return None
    segments = tail[at + 26]
    return start + at + 27 + segments + sum(tail[at + 27 : at + 27 + segments])


_ENDS: Final[dict[str, Callable[[memoryview], int | None]]] = {
    "aiff": _iff,
    "asf": _asf,
    "au": _au,
    "caf": _caf,
    "matroska": _matroska,
    "mov": _boxes,
    "ogg": _ogg,
    "w64": _w64,
    "wav": _riff,
}
