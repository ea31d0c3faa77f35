"""Times for players of a film, whose sound may begin later than its picture."""

from __future__ import annotations

from dataclasses import replace

from aligner_client.alignment import Alignment


def on_film_clock(alignment: Alignment) -> Alignment:
    """The same with `audio_start` added to the time of every word: for formats that are shown beside a film."""
    later = alignment.audio_start
    if not later:
        return alignment
    words = [replace(word, start=word.start + later, end=word.end + later) for word in alignment.words]
    return replace(alignment, words=words, audio_start=0.0)
