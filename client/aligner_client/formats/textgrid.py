"""Praat's TextGrid, the long text form: https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html."""

from __future__ import annotations

from collections.abc import Sequence

from aligner_client.alignment import PLACED, Alignment, Word

_TICKS = 1_000_000
"""Times are whole microseconds, so that two that print alike are equal."""

_MIN_TICKS = _TICKS // 1000
"""Praat refuses xmin >= xmax; a word without length gets a millisecond where there is room."""

Interval = tuple[int, int, str]


def render_textgrid(alignment: Alignment) -> str:
    """One interval tier "words" that covers the audio; silence is an empty interval, words without a time are left out.

    A word that overlaps the one before it starts where that one ends.
    """
    total = max(_ticks(alignment.audio_seconds), _MIN_TICKS)
    intervals = _tile(alignment.words, total)
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {_seconds(total)}",
        "tiers? <exists>",
        "size = 1",
        "item []:",
        "    item [1]:",
        '        class = "IntervalTier"',
        '        name = "words"',
        "        xmin = 0",
        f"        xmax = {_seconds(total)}",
        f"        intervals: size = {len(intervals)}",
    ]
    for place, (start, end, text) in enumerate(intervals, 1):
        quoted = text.replace('"', '""')
        lines += [
            f"        intervals [{place}]:",
            f"            xmin = {_seconds(start)}",
            f"            xmax = {_seconds(end)}",
            f'            text = "{quoted}"',
        ]
    return "\n".join(lines) + "\n"


def _tile(words: Sequence[Word], total: int) -> list[Interval]:
    found = sorted((word for word in words if word.status in PLACED), key=lambda word: (word.start, word.end))
    intervals: list[Interval] = []
    reached = 0
    for place, word in enumerate(found):
        # Room is reserved for the words after it, so that several at one point, or at the very end, all fit.
        latest = max(total - (len(found) - place) * _MIN_TICKS, reached)
        start = min(max(_ticks(word.start), reached), latest)
        end = min(max(_ticks(word.end), start + _MIN_TICKS), max(total - (len(found) - place - 1) * _MIN_TICKS, start))
        if end <= start:
            continue  # more words than milliseconds
        if start > reached:
            intervals.append((reached, start, ""))
        intervals.append((start, end, word.text))
        reached = end
    if reached < total:
        intervals.append((reached, total, ""))
    return intervals


def _ticks(seconds: float) -> int:
    return round(seconds * _TICKS)


def _seconds(ticks: int) -> str:
    return f"{ticks / _TICKS:.6f}".rstrip("0").rstrip(".")
