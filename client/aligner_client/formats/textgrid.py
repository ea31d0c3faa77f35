"""Praat's TextGrid, the long text form: https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aligner_client.alignment import PLACED, Alignment

_TICKS = 1_000_000
"""Times are whole microseconds, so that two that print alike are equal."""

_MIN_TICKS = _TICKS // 1000
"""Praat refuses xmin >= xmax; a word without length gets a millisecond where there is room."""

Interval = tuple[int, int, str]


def render_textgrid(alignment: Alignment) -> str:
    """An interval tier "words" that covers the audio, and one "phones" if there are any; of channels "words 0", "words 1".

    Silence is an empty interval, words without a time are left out. A word that overlaps the one before it starts where that one
    ends.
    """
    total = max(_ticks(alignment.audio_seconds), _MIN_TICKS)
    tiers: dict[str, list[tuple[float, float, str]]] = {}
    channels: list[int | None] = [one.number for one in alignment.channels]
    for channel in channels or [None]:
        words = [word for word in alignment.words if word.channel == channel]
        suffix = "" if channel is None else f" {channel}"
        tiers[f"words{suffix}"] = [(word.start, word.end, word.text) for word in words if word.status in PLACED]
        if alignment.phone_set:
            tiers[f"phones{suffix}"] = [(phone.start, phone.end, phone.symbol) for word in words for phone in word.phones]
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {_seconds(total)}",
        "tiers? <exists>",
        f"size = {len(tiers)}",
        "item []:",
    ]
    for number, (name, found) in enumerate(tiers.items(), 1):
        lines += _tier(number, name, _tile(found, total), total)
    return "\n".join(lines) + "\n"


def _tier(number: int, name: str, intervals: Sequence[Interval], total: int) -> Iterator[str]:
    yield from (
        f"    item [{number}]:",
        '        class = "IntervalTier"',
        f'        name = "{name}"',
        "        xmin = 0",
        f"        xmax = {_seconds(total)}",
        f"        intervals: size = {len(intervals)}",
    )
    for place, (start, end, text) in enumerate(intervals, 1):
        quoted = text.replace('"', '""')
        yield from (
            f"        intervals [{place}]:",
            f"            xmin = {_seconds(start)}",
            f"            xmax = {_seconds(end)}",
            f'            text = "{quoted}"',
        )


def _tile(found: Sequence[tuple[float, float, str]], total: int) -> list[Interval]:
    """`found`: start and end in s, and what is shown."""
    found = sorted(found, key=lambda one: one[:2])
    intervals: list[Interval] = []
    reached = 0
    for place, (begin, stop, text) in enumerate(found):
        # Room is reserved for the words after it, so that several at one point, or at the very end, all fit.
        latest = max(total - (len(found) - place) * _MIN_TICKS, reached)
        start = min(max(_ticks(begin), reached), latest)
        end = min(max(_ticks(stop), start + _MIN_TICKS), max(total - (len(found) - place - 1) * _MIN_TICKS, start))
        if end <= start:
            continue  # more words than milliseconds
        if start > reached:
            intervals.append((reached, start, ""))
        intervals.append((start, end, text))
        reached = end
    if reached < total:
        intervals.append((reached, total, ""))
    return intervals


def _ticks(seconds: float) -> int:
    return round(seconds * _TICKS)


def _seconds(ticks: int) -> str:
    return f"{ticks / _TICKS:.6f}".rstrip("0").rstrip(".")
