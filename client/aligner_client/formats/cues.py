"""Groups words into subtitles that fit on a screen and end at pauses and sentences.

The limits are those of broadcasters' timed-text guides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from textwrap import wrap

from aligner_client.alignment import PLACED, Alignment, Word, WordStatus
from aligner_client.formats.gaps import Gap, divided

LINE = 42
"""Characters a line."""
LINES = 2
_MAX_CUE = 7_000
"""Milliseconds."""
_PAUSE = 600
"""Milliseconds; a longer silence ends a cue."""
_MIN_SENTENCE = 1_000
"""Milliseconds after which the end of a sentence ends a cue; "No. Yes. Why?" stays together."""
_NEW_LINE, _NEW_CUE = 1, 2
"""What is before a word: a line of its own, a cue of its own."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A word with the punctuation that touches it, at most LINE characters. `times`, in ms, is None if it was not found."""

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
    """A subtitle: whole milliseconds, start < end, and one or two lines, none empty; more if many words were not found."""

    start: int
    end: int
    rows: tuple[Row, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """The text of each line."""
        return tuple(map(_joined, self.rows))


def cues(alignment: Alignment, transcript: str | None = None) -> list[Cue]:
    """Cues in order, never overlapping; none if no word was found.

    With the `transcript` that the words' offsets refer to, punctuation, labels and sounds are shown, its line breaks are kept as
    breaks of lines or cues, its blank lines as breaks of cues, and cues end with sentences where possible. Markup and the numbers
    and times of a pasted file are not shown. Words that were not found are shown in their place and take no time: where they
    would fill a cue of their own, their text is added to a neighbouring cue, beyond LINES if necessary.
    """
    groups: list[list[Shown]] = []
    for word in _shown(alignment.words, transcript):
        if groups and _fits(groups[-1], word):
            groups[-1].append(word)
        else:
            groups.append([word])
    return _in_order(_with_time(groups))


def _shown(words: Sequence[Word], transcript: str | None) -> Iterator[Shown]:
    """Each word as it is shown; one too long for a line is divided into pieces, and its time with it."""
    spoken = [word for word in words if word.status is not WordStatus.SKIPPED]
    spots = [(word.char_start, word.char_end) for word in spoken]
    gaps = divided(transcript, spots) if transcript is not None else [Gap()] * (len(spoken) + 1)
    for word, before, after in zip(spoken, gaps, gaps[1:], strict=False):
        text = " ".join(f"{before.lead}{word.text}{after.tail}".split())
        pieces = wrap(text, LINE, break_on_hyphens=False)
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


def _fits(group: Sequence[Shown], word: Shown) -> bool:
    """Whether `word` belongs to the same cue as `group`."""
    if word.opens == _NEW_CUE or not _rows([*group, word]):
        return False
    span = _span(group)
    if span is None:
        return True
    start, end = span
    if group[-1].ends_sentence and (end - start >= _MIN_SENTENCE or len(_joined(group)) > LINE):
        return False
    return word.times is None or (word.times[0] - end <= _PAUSE and word.times[1] - start <= _MAX_CUE)


def _joined(group: Sequence[Shown]) -> str:
    return "".join(word.text if word.glued else " " + word.text for word in group).lstrip()


def _rows(group: Sequence[Shown]) -> tuple[Row, ...]:
    """The words on one line, or on two of lengths as similar as possible, or on the lines of the transcript; empty: no room."""
    rows = _broken(group)
    if len(rows) > 1:
        return rows if len(rows) <= LINES and all(len(_joined(row)) <= LINE for row in rows) else ()
    text = _joined(group)
    if len(text) <= LINE:
        return (tuple(group),)
    if len(text) > LINES * LINE + 1:
        return ()
    best: tuple[Row, ...] = ()
    uneven = LINE + 1
    at = len(group[0].text)
    for place, word in enumerate(group[1:], 1):
        second = at if word.glued else at + 1
        rest = len(text) - second
        if at <= LINE and rest <= LINE and abs(at - rest) < uneven:
            best, uneven = (tuple(group[:place]), tuple(group[place:])), abs(at - rest)
        at = second + len(word.text)
    return best


def _broken(group: Sequence[Shown]) -> tuple[Row, ...]:
    """The words between line breaks."""
    starts = [0, *(place for place, word in enumerate(group) if place and word.opens)]
    return tuple(tuple(group[start:end]) for start, end in zip(starts, [*starts[1:], len(group)], strict=True))


def _stacked(group: Sequence[Shown]) -> tuple[Row, ...]:
    """The words on as many lines as necessary."""
    rows: list[list[Shown]] = []
    for part in _broken(group):
        rows.append([])
        for word in part:
            if rows[-1] and len(_joined([*rows[-1], word])) > LINE:
                rows.append([])
            rows[-1].append(word)
    return tuple(map(tuple, rows))


def _with_time(groups: Sequence[list[Shown]]) -> Iterator[Cue]:
    """A cue for each group with a found word; other groups are added to the cue before them, at the start to the first cue."""
    timed = [(place, span) for place, span in enumerate(map(_span, groups)) if span]
    firsts = [0, *(place for place, _ in timed[1:]), len(groups)]
    for (_, (start, end)), (first, last) in zip(timed, pairwise(firsts), strict=False):
        group = [word for part in groups[first:last] for word in part]
        yield Cue(start, end, _rows(group) or _stacked(group))


def _in_order(timed: Iterator[Cue]) -> list[Cue]:
    """Remove overlaps, cues without length, which players drop, and cues that stay too long."""
    ordered: list[Cue] = []
    reached = 0
    for cue in timed:
        start = max(cue.start, reached)
        reached = min(max(cue.end, start + 1), start + _MAX_CUE)
        ordered.append(replace(cue, start=start, end=reached))
    return ordered
