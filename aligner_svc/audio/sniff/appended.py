"""Files hidden behind audio: after the end that a container declares, or with their directory at the very end."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Final

from aligner_svc.audio.headers.sphere import read_sphere_header
from aligner_svc.audio.sniff import foreign

_BEHIND: Final = 4096
"""Bytes examined after the declared end."""

_TAIL: Final = 22 + 0xFFFF
"""A ZIP's directory is found from the end: its last record, and a comment of at most 65535 bytes."""

_MAX_RECORDS: Final = 64
"""Ends of ZIP directories examined. By chance there is one in 65,000 files; more are there to hide one."""

_MAX_CHUNKS: Final = 256
"""Boxes, chunks or objects on the top level that are stepped over; recordings have about ten."""

_REST_OF_FILE: Final = -1


def appended(view: memoryview, container: str) -> str | None:
    """The name of a file hidden behind the audio; None if there is none.

    `container` is the demuxer. FLAC, MP3, AAC, AMR, AC-3 and WavPack declare no end; after these only a ZIP (JAR, APK,
    office document) is found: programs that open other files read the first bytes alone.
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
    """Whether a directory of the size in the record precedes it; an empty archive has none."""
    entries, size, offset = struct.unpack_from("<HII", tail, at + 10)
    if 0xFFFFFFFF in (size, offset) or entries == 0xFFFF:
        return at >= 20 and tail.startswith(b"PK\x06\x07", at - 20)  # ZIP64's pointer to its own record
    start = view.nbytes - len(tail) + at - size
    return start >= 0 and bytes(view[start : start + 4]) == b"PK\x01\x02"


def _riff(view: memoryview) -> int | None:
    """RIFF, RIFX, RF64, BW64 and AIFF. Programs that cannot seek back write 0, or more than any file holds."""
    size = int.from_bytes(view[4:8], "big" if bytes(view[:4]) in {b"RIFX", b"FORM"} else "little")
    if size == 0xFFFFFFFF and bytes(view[12:16]) == b"ds64":
        size = int.from_bytes(view[20:28], "little")
    return None if size < 4 else 8 + size + (size & 1)


def _au(view: memoryview) -> int | None:
    offset, size = struct.unpack_from(">II", view, 4) if view.nbytes >= 12 else (0, 0xFFFFFFFF)
    return None if size == 0xFFFFFFFF else offset + size


def _chunks(view: memoryview, start: int, chunk_bytes: Callable[[bytes], int]) -> int | None:
    """Where the chunks from `start` on end: at the first bytes that are no chunk, or one that reaches past the file.

    `chunk_bytes` gives the whole size of the chunk with a header of 24 bytes: 0 for no chunk, or _REST_OF_FILE.
    """
    at = start
    for _ in range(_MAX_CHUNKS):
        size = chunk_bytes(bytes(view[at : at + 24]))
        if size == _REST_OF_FILE:
            return None
        if not size or at + size > view.nbytes:
            break
        at += size
    return at or None


def _mp4_box(header: bytes) -> int:
    size = int.from_bytes(header[:4], "big")
    if size == 1:
        size = int.from_bytes(header[8:16], "big")
    return size if size >= 8 and len(header) >= 8 and _is_name(header[4:8]) else 0


def _caf_chunk(header: bytes) -> int:
    name, size = header[:4], int.from_bytes(header[4:12], "big", signed=True)
    if name == b"data" and size == -1:  # what a recorder leaves that is switched off
        return _REST_OF_FILE
    return 12 + size if size >= 0 and _is_name(name) else 0


def _asf_object(header: bytes) -> int:
    size = int.from_bytes(header[16:24], "little")
    return size if size >= 24 else 0


def _is_name(name: bytes) -> bool:
    """Four letters; QuickTime counts © as one."""
    return all(32 <= c < 127 or c == 0xA9 for c in name)


def _matroska(view: memoryview) -> int | None:
    """Behind the segment, if it says how long it is; live recordings do not."""
    at = _element_end(view, 4)
    if at is None or bytes(view[at : at + 4]) != b"\x18S\x80g":
        return at
    return _element_end(view, at + 4)


def _element_end(view: memoryview, at: int) -> int | None:
    """Where the element ends whose size is at `at`; None for unknown."""
    first = view[at] if at < view.nbytes else 0
    length = 9 - first.bit_length()
    if not first or length > 8:
        return None
    value = int.from_bytes(view[at : at + length], "big") & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else at + length + value


def _sphere(view: memoryview) -> int | None:
    header = read_sphere_header(view)
    return header.start + header.samples * header.frame if header and header.samples else None


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
    "aiff": _riff,
    "asf": partial(_chunks, start=0, chunk_bytes=_asf_object),
    "au": _au,
    "caf": partial(_chunks, start=8, chunk_bytes=_caf_chunk),
    "matroska": _matroska,
    "mov": partial(_chunks, start=0, chunk_bytes=_mp4_box),
    "nistsphere": _sphere,
    "ogg": _ogg,
    "w64": lambda view: int.from_bytes(view[16:24], "little") or None,
    "wav": _riff,
}
"""Where a container's declared end is (bytes), by demuxer; None if it declares none."""
