"""Chained Ogg (RFC 3533, section 4): recordings one after another in a file, each with headers of its own.

libav keeps the decoder of the first one: a second one with other channels ends the file, with other codebooks it becomes noise.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Final

_FIRST_PAGE: Final = re.compile(
    rb"OggS\0[\x02\x06]\0{8}.{12}\x01.(?:OpusHead|\x01vorbis|\x7fFLAC|Speex   |fishead\0|\x80theora|BBCD)", re.DOTALL
)
"""A page that begins a stream, at position 0, with the header of a codec and nothing else in it: by chance in no file."""

_MAX_PAGES: Final = 100_000
"""First pages looked at; 512 MiB of nothing else would take a quarter of a minute."""


def links(data: memoryview) -> list[int]:
    """Where each recording begins (bytes). Streams that begin together, with nothing between their first pages, are one."""
    starts: list[int] = []
    reached = -1
    for match in islice(_FIRST_PAGE.finditer(data), _MAX_PAGES):
        if match.start() != reached:
            starts.append(match.start())
        reached = _end(data, match.start())
    return starts


def _end(data: memoryview, at: int) -> int:
    """Where the page at `at` ends: 27 bytes, a table of lengths, as many bytes as they add up to."""
    table = data[at + 27 : at + 27 + data[at + 26]]
    return at + 27 + len(table) + sum(table)
