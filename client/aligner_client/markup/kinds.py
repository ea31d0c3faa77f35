"""What in a transcript is not said."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """What a mark is, and so what becomes of it in subtitles."""

    LABEL = "label"
    """Who speaks: shown."""
    SOUND = "sound"
    """A sound, or a remark in brackets: shown."""
    NOTE = "note"
    """A footnote's mark: not shown."""
    FILE = "file"
    """Numbers, times and headers of a subtitle file that was pasted: not shown."""
    TAG = "tag"
    """A tag or an override: no word, and not shown."""


class Mark(NamedTuple):
    """`text[start:end]` is not said; `instead` is read in its place."""

    start: int
    end: int
    kind: Kind
    instead: str
