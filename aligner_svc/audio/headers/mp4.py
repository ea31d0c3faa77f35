"""The order of the boxes of an MP4 (ISO/IEC 14496-12), which is that of its bytes."""

from __future__ import annotations


def index_first(data: memoryview) -> bool | None:
    """Whether the index (`moov`), or that of a fragment, comes before the samples; None: neither is in sight yet."""
    at = 0
    while at + 16 <= data.nbytes:
        size, name = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8])
        if name in {b"moov", b"moof"}:
            return True
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if name == b"mdat" or size < 8:
            return False
        at += size
    return None
