"""Groups words into subtitles that fit on a screen and end at pauses and sentences.

The limits are those of broadcasters' timed-text guides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import merge
from itertools import pairwise
from operator import attrgetter
from textwrap import wrap

from aligner_client.alignment import PLACED, Alignment, Word, WordStatus
from aligner_client.formats.gaps import Gap, divided


@dataclass(frozen=True, slots=True)
class CueLayout:
    """The most that a subtitle shows at a time. Each is at least 1."""

    line: int = 42
    """Characters a line. Broadcasters allow 42 of Latin script, and 16 of Chinese."""
    lines: int = 2
    seconds: float = 7.0


_PAUSE = 600
"""Milliseconds; a longer silence ends a cue."""
_MIN_SENTENCE = 1_000
"""Milliseconds after which the end of a sentence ends a cue; "No. Yes. Why?" stays together."""
_NEW_LINE, _NEW_CUE = 1, 2
"""What is before a word: a line of its own, a cue of its own."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A word with the punctuation that touches it, at most a line long. `times`, in ms, is None if it was not found."""

    text: str
    times: tuple[int, int] | None
    glued: bool
    """No blank before it: "word—word"."""
    ends_sentence: bool
    opens: int = 0
    """_NEW_LINE or _NEW_CUE where the transcript has a line or paragraph break before it, or another speaker begins."""


Row = tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class Cue:
    """A subtitle: whole milliseconds, start < end, and the layout's lines, none empty; more if many words were not found."""

    start: int
    end: int
    rows: tuple[Row, ...]
    channel: int | None = None
    """As of its words."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The text of each line."""
        return tuple(map(_joined, self.rows))


def cues(alignment: Alignment, transcript: str | None = None, layout: CueLayout | None = None) -> list[Cue]:
    """Cues in order, never overlapping but for those of different channels; none if no word was found.

    With the `transcript` that the words' offsets refer to, punctuation, labels and sounds are shown, its line breaks are kept as
    breaks of lines or cues, its blank lines as breaks of cues, and cues end with sentences where possible. Markup and the numbers
    and times of a pasted file are not shown. Words that were not found are shown in their place and take no time: where they
    would fill a cue of their own, their text is added to a neighbouring cue, beyond its lines if necessary.
    """
    if alignment.channels:
        apart = (
            [replace(cue, channel=one.number) for cue in cues(alignment.channel(one.number), one.transcript, layout)]
            for one in alignment.channels
        )
        return list(merge(*apart, key=attrgetter("start")))
    layout = layout or CueLayout()
    groups: list[list[Shown]] = []
    for word in _shown(alignment.words, transcript, layout.line):
        if groups and _fits(groups[-1], word, layout):
            groups[-1].append(word)
        else:
            groups.append([word])
    return _in_order(_with_time(groups, layout), round(layout.seconds * 1000))


def _shown(words: Sequence[Word], transcript: str | None, line: int) -> Iterator[Shown]:
    """Each word as it is shown; one too long for a line is divided into pieces, and its time with it."""
    spoken = [word for word in words if word.status is not WordStatus.SKIPPED]
    spots = [(word.char_start, word.char_end) for word in spoken]
    gaps = divided(transcript, spots) if transcript is not None else [Gap()] * (len(spoken) + 1)
    for word, before, after in zip(spoken, gaps, gaps[1:], strict=False):
        text = " ".join(f"{before.lead}{word.text}{after.tail}".split())
        pieces = wrap(text, line, break_on_hyphens=False)
        times = _milliseconds(word)
        for number, piece in enumerate(pieces):
            first, last = number == 0, number == len(pieces) - 1
            part = times and _part(times, number, len(pieces))
            yield Shown(piece, part, before.glued and first, after.ends_sentence and last, before.opens if first else 0)


def _milliseconds(word: Word) -> tuple[int, int] | None:
    if word.status not in PLACED:
        return None
    start = max(0, round(word.start * 1000))
    return start, max(start, round(word.end * 1000))


def _part(times: tuple[int, int], number: int, count: int) -> tuple[int, int]:
    start, end = times
    return start + (end - start) * number // count, start + (end - start) * (number + 1) // count


def _span(group: Sequence[Shown]) -> tuple[int, int] | None:
    times = [word.times for word in group if word.times]
    return (times[0][0], max(end for _, end in times)) if times else None


def _fits(group: Sequence[Shown], word: Shown, layout: CueLayout) -> bool:
    """Whether `word` belongs to the same cue as `group`."""
    if word.opens == _NEW_CUE or not _has_room([*group, word], layout):
        return False
    span = _span(group)
    if span is None:
        return True
    start, end = span
    if group[-1].ends_sentence and (end - start >= _MIN_SENTENCE or len(_joined(group)) > layout.line):
        return False
    return word.times is None or (word.times[0] - end <= _PAUSE and word.times[1] - start <= layout.seconds * 1000)


def _joined(group: Sequence[Shown]) -> str:
    return "".join(word.text if word.glued else " " + word.text for word in group).lstrip()


def _has_room(group: Sequence[Shown], layout: CueLayout) -> bool:
    """Whether a cue has lines for the words: those of the transcript if it breaks them, else as many as they need."""
    rows = _broken(group)
    if len(rows) > 1:
        return len(rows) <= layout.lines and all(len(_joined(row)) <= layout.line for row in rows)
    return len(_filled(group, layout.line)) <= layout.lines


def _rows(group: Sequence[Shown], layout: CueLayout) -> tuple[Row, ...]:
    """The words on the lines of the transcript if it breaks them, else on as few as possible, of similar lengths."""
    if not _has_room(group, layout):
        return tuple(row for part in _broken(group) for row in _filled(part, layout.line))
    rows = _broken(group)
    if len(rows) > 1:
        return rows
    return _balanced(group, len(_filled(group, layout.line)), layout.line)


def _filled(group: Sequence[Shown], line: int) -> list[Row]:
    """The words on as few lines as possible, each but the last as full as possible."""
    starts, length = [0], 0
    for place, word in enumerate(group):
        longer = length + len(word.text) + (0 if word.glued or not length else 1)
        if length and longer > line:
            starts.append(place)
            longer = len(word.text)
        length = longer
    return [tuple(group[start:end]) for start, end in pairwise([*starts, len(group)])]


def _balanced(group: Sequence[Shown], count: int, line: int) -> tuple[Row, ...]:
    """The words on `count` lines, into which they fit, with the least sum of the squares of their lengths."""
    starts: list[int] = []
    ends: list[int] = []
    for word in group:
        starts.append((ends[-1] if ends else 0) + (0 if word.glued or not ends else 1))
        ends.append(starts[-1] + len(word.text))
    best: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, (0,))}
    """By the words on the lines so far: the sum, and where the lines begin and end."""
    for _ in range(count):
        longer: dict[int, tuple[int, tuple[int, ...]]] = {}
        for start, (cost, breaks) in best.items():
            for end in range(start + 1, len(group) + 1):
                length = ends[end - 1] - starts[start]
                if length > line:
                    break
                if end not in longer or cost + length**2 < longer[end][0]:
                    longer[end] = cost + length**2, (*breaks, end)
        best = longer
    return tuple(tuple(group[start:end]) for start, end in pairwise(best[len(group)][1]))


def _broken(group: Sequence[Shown]) -> tuple[Row, ...]:
    """The words between line breaks."""
    starts = [0, *(place for place, word in enumerate(group) if place and word.opens)]
    return tuple(tuple(group[start:end]) for start, end in zip(starts, [*starts[1:], len(group)], strict=True))


def _with_time(groups: Sequence[list[Shown]], layout: CueLayout) -> Iterator[Cue]:
    """A cue for each group with a found word; other groups are added to the cue before them, at the start to the first cue."""
    timed = [(place, span) for place, span in enumerate(map(_span, groups)) if span]
    firsts = [0, *(place for place, _ in timed[1:]), len(groups)]
    for (_, (start, end)), (first, last) in zip(timed, pairwise(firsts), strict=False):
        group = [word for part in groups[first:last] for word in part]
        yield Cue(start, end, _rows(group, layout))


def _in_order(timed: Iterator[Cue], most: int) -> list[Cue]:
    """Remove overlaps, cues without length, which players drop, and cues that stay longer than `most` ms."""
    ordered: list[Cue] = []
    reached = 0
    for cue in timed:
        start = max(cue.start, reached)
        reached = min(max(cue.end, start + 1), start + most)
        ordered.append(replace(cue, start=start, end=reached))
    return ordered
