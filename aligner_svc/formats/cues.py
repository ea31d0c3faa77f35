"""Groups words into subtitles that fit on a screen and end at pauses and sentences.

The limits are those of broadcasters' timed-text guides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from textwrap import wrap

from aligner_svc.domain import Alignment, Word, WordStatus

LINE = 42
"""Characters a line."""
LINES = 2
_MAX_CUE = 7_000
"""Milliseconds."""
_PAUSE = 600
"""Milliseconds; a longer silence ends a cue."""
_MIN_SENTENCE = 1_000
"""Milliseconds after which the end of a sentence ends a cue; "No. Yes. Why?" stays together."""

_SENTENCE_END = re.compile("[.!?…。！？]")  # noqa: RUF001  full-width ends are meant
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_OPENING = "([{¿¡\u201c\u2018«"


@dataclass(frozen=True, slots=True)
class Cue:
    """A subtitle: whole milliseconds, start < end, and one or two lines, none empty; more if many words were not found."""

    start: int
    end: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Shown:
    """A word with the punctuation that touches it, at most LINE characters. `times` is None if it was not found."""

    text: str
    times: tuple[int, int] | None
    glued: bool
    """No blank before it: "word—word"."""
    ends_sentence: bool


def cues(alignment: Alignment, transcript: str | None = None) -> list[Cue]:
    """Cues in order, never overlapping; none if no word was found.

    With the `transcript` that the words' offsets refer to, punctuation is shown and cues end with sentences where possible.
    Words that were not found are shown in their place and take no time: where they would fill a cue of their own, their text
    is added to a neighbouring cue, beyond LINES if necessary.
    """
    groups: list[list[_Shown]] = []
    for word in _shown(alignment.words, transcript):
        if groups and _fits(groups[-1], word):
            groups[-1].append(word)
        else:
            groups.append([word])
    return _in_order(_with_time(groups))


def _shown(words: Sequence[Word], transcript: str | None) -> Iterator[_Shown]:
    """Each word as it is shown; one too long for a line is divided into pieces, and its time with it."""
    lead, glued = "", False
    for place, word in enumerate(words):
        tail, next_lead, next_glued = "", "", False
        if transcript is not None:
            end = words[place + 1].char_start if place + 1 < len(words) else len(transcript)
            lead = lead if place else transcript[: word.char_start]
            tail, next_lead, next_glued = _divide(transcript[word.char_end : end], last=place + 1 == len(words))
        text = _BLANKS.sub(" ", lead + word.text + tail).strip()
        ends = _SENTENCE_END.search(tail) is not None
        pieces = wrap(text, LINE, break_on_hyphens=False)
        times = _milliseconds(word)
        for number, piece in enumerate(pieces):
            part = times and _part(times, number, len(pieces))
            yield _Shown(piece, part, glued and not number, ends and number == len(pieces) - 1)
        lead, glued = next_lead, next_glued


def _divide(between: str, *, last: bool) -> tuple[str, str, bool]:
    """Split the text between two words: (the end of the first, the start of the second, whether no blank is between them)."""
    if last:
        return between, "", False
    blanks = list(_BLANKS.finditer(between))
    if blanks:
        return between[: blanks[-1].start()], between[blanks[-1].end() :], False
    cut = next((place for place, char in enumerate(between) if char in _OPENING), len(between))
    return between[:cut], between[cut:], True


def _milliseconds(word: Word) -> tuple[int, int] | None:
    if word.status is WordStatus.NOT_FOUND:
        return None
    start = max(0, round(word.start * 1000))
    return start, max(start, round(word.end * 1000))


def _part(times: tuple[int, int], number: int, count: int) -> tuple[int, int]:
    start, end = times
    return start + (end - start) * number // count, start + (end - start) * (number + 1) // count


def _span(group: Sequence[_Shown]) -> tuple[int, int] | None:
    times = [word.times for word in group if word.times]
    return (times[0][0], max(end for _, end in times)) if times else None


def _fits(group: Sequence[_Shown], word: _Shown) -> bool:
    """Whether `word` belongs to the same cue as `group`."""
    if not _lines([*group, word]):
        return False
    span = _span(group)
    if span is None:
        return True
    start, end = span
    if group[-1].ends_sentence and (end - start >= _MIN_SENTENCE or len(_joined(group)) > LINE):
        return False
    return word.times is None or (word.times[0] - end <= _PAUSE and word.times[1] - start <= _MAX_CUE)


def _joined(group: Sequence[_Shown]) -> str:
    return "".join(word.text if word.glued else " " + word.text for word in group).lstrip()


def _lines(group: Sequence[_Shown]) -> tuple[str, ...]:
    """The text on one line, or on two of lengths as similar as possible; empty if it does not fit."""
    text = _joined(group)
    if len(text) <= LINE:
        return (text,)
    if len(text) > LINES * LINE + 1:
        return ()
    best: tuple[str, ...] = ()
    uneven = LINE + 1
    at = len(group[0].text)
    for word in group[1:]:
        second = at if word.glued else at + 1
        rest = len(text) - second
        if at <= LINE and rest <= LINE and abs(at - rest) < uneven:
            best, uneven = (text[:at], text[second:]), abs(at - rest)
        at = second + len(word.text)
    return best


def _stacked(group: Sequence[_Shown]) -> tuple[str, ...]:
    """The text on as many lines as necessary."""
    lines = [group[0].text]
    for word in group[1:]:
        longer = lines[-1] + ("" if word.glued else " ") + word.text
        if len(longer) <= LINE:
            lines[-1] = longer
        else:
            lines.append(word.text)
    return tuple(lines)


def _with_time(groups: Sequence[list[_Shown]]) -> Iterator[Cue]:
    """A cue for each group with a found word; other groups are added to the cue before them, at the start to the first cue."""
    timed = [(place, span) for place, span in enumerate(map(_span, groups)) if span]
    firsts = [0, *(place for place, _ in timed[1:]), len(groups)]
    for (_, (start, end)), (first, last) in zip(timed, pairwise(firsts), strict=False):
        group = [word for part in groups[first:last] for word in part]
        yield Cue(start, end, _lines(group) or _stacked(group))


def _in_order(timed: Iterator[Cue]) -> list[Cue]:
    """Remove overlaps, cues without length, which players drop, and cues that stay too long."""
    ordered: list[Cue] = []
    reached = 0
    for cue in timed:
        start = max(cue.start, reached)
        reached = min(max(cue.end, start + 1), start + _MAX_CUE)
        ordered.append(replace(cue, start=start, end=reached))
    return ordered
