"""Subtitle files: where in the text the cues are, and the same text with other times.

Nothing but the digits of the times changes, so what these rules do not know is kept as it is.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on


class TranscriptFormat(Enum):
    """What a transcript is. The value is also the usual suffix of the files."""

    PLAIN = "plain"
    SRT = "srt"
    """SubRip."""
    VTT = "vtt"
    """WebVTT."""
    ASS = "ass"
    """Advanced SubStation Alpha, and SubStation Alpha (.ssa)."""


TranscriptFormatLike = TranscriptFormat | Literal["plain", "srt", "vtt", "ass"]
"""A format, or its value."""


@dataclass(frozen=True, slots=True)
class SourceCue:
    """A cue as the file has it. Times in ms, the end not before the start; `[from, to)` in code points of the file."""

    start: int
    end: int
    start_at: tuple[int, int]
    """Of the digits of the time."""
    end_at: tuple[int, int]
    text_at: tuple[int, int]


class SubtitleError(ValueError):
    """The text is no subtitle file of the format that was named."""


_COLON = r" ?: ?"
_TIME = (
    rf"-?(?:(?:\d{{1,3}}{_COLON})?\d{{1,2}}{_COLON}\d{{1,2}} ?[.,] ?\d{{1,3}}"
    rf"|\d{{1,3}}{_COLON}\d{{1,2}}{_COLON}\d{{1,2}}(?::\d{{1,3}})?)"
)
"""With hours or a fraction or both: "10:30" may be said. Translators put blanks into times, and shorten arrows."""
_ARROW = r"(?:--?|[\u2013\u2014])>"
_UNSEEN = r"\ufeff\u200e\u200f\u202a-\u202e \t"
_CUE = re.compile(rf"^[{_UNSEEN}]*({_TIME})[ \t]*{_ARROW}[ \t]*({_TIME})(?=[{_UNSEEN}\r\n]|\Z)[^\n]*(?:\n|\Z)", re.MULTILINE)
_WORD_TIME = re.compile(rf"<({_TIME})>")
_PART = re.compile(r"\d+")
_LINE_END = re.compile(r"\r(?!\n)")
_ASS_TIME = re.compile(r"\s*(\d{1,3}:\d{1,2}:\d{1,2}[.:,]\d{1,3})\s*\Z")
_ASS_LINE = re.compile(r"^[ \t]*Dialogue:([^\n]*)", re.MULTILINE | re.IGNORECASE)
_ASS_FORMAT = re.compile(r"^[ \t]*\[Events\][^\[]*?^[ \t]*Format:([^\n]*)", re.MULTILINE | re.IGNORECASE)
_ASS_FIELDS = ("layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text")
"""Of an event, where the file does not say; SSA has as many."""
_UNSAID = {
    TranscriptFormat.ASS: re.compile(r"\{[^{}\n]*\\p[1-9].*?(?:\{[^{}\n]*\\p0[^{}\n]*\}|$)|\{[^{}\\\n]*\}|\\n", re.MULTILINE),
    TranscriptFormat.VTT: re.compile(r"<rt[^<>]*>[^<]*"),
}
"""In the text of an ASS event: a drawing, a comment, a line break that is a blank unless lines are broken by hand. In WebVTT: how
the text before it is read."""
_TAG = re.compile(r"\{[^{}]*\}|<[^<>]*>")
_ASS_BLANK = re.compile(r"\\[nNh]")
_BLANK_LINE = re.compile(r"^[ \t\r]*(?:\n|\Z)", re.MULTILINE)
_EMPTY_LINE = re.compile(r"^\r?(?:\n|\Z)", re.MULTILINE)
_NUMBER_LINE = re.compile(r"[\ufeff \t]*\d{1,7}[ \t\r]*\n\Z")


@dataclass(frozen=True, slots=True)
class SubtitleFile:
    """A subtitle file. `cues` in the order of the file; `in_time`: their places in the order of their times."""

    text: str
    format: TranscriptFormat
    cues: tuple[SourceCue, ...]
    in_time: tuple[int, ...]

    @classmethod
    def of(cls, text: str, format: TranscriptFormat) -> Self:  # noqa: A002
        """Linear in the length. Raises SubtitleError if there is no cue."""
        text_format = TranscriptFormat(format)
        lines, vtt = _lines(text), text_format is TranscriptFormat.VTT
        cues = tuple(_ass(lines) if text_format is TranscriptFormat.ASS else _timed(lines, vtt=vtt))
        if not cues:
            raise SubtitleError(f"there is no cue of a {text_format.value} file in the transcript")
        return cls(text, text_format, cues, tuple(sorted(range(len(cues)), key=lambda place: (cues[place].start, place))))

    @property
    def spoken(self) -> str:
        """The text of the cues in the order of their times, a paragraph each; tags and labels are still in it.

        As long as in the file: what is not said is blank, and so is a cue that repeats another.
        """
        repeats = self.repeats()
        texts = enumerate(self._texts())
        return "\n\n".join(" " * len(text) if number in repeats else text for number, text in texts)

    def repeats(self) -> dict[int, int]:
        """The cues shown at once with another of the same text, as layers of ASS are, and that one; places in order of time."""
        first: dict[tuple[int, int, str], int] = {}
        found: dict[int, int] = {}
        for number, (place, text) in enumerate(zip(self.in_time, self._texts(), strict=True)):
            shown = " ".join(_ASS_BLANK.sub(" ", _TAG.sub("", text)).split())
            one = first.setdefault((self.cues[place].start, self.cues[place].end, shown), number)
            if shown and one != number:
                found[number] = one
        return found

    def _texts(self) -> Iterator[str]:
        """Of the cues in the order of their times."""
        text = _lines(self.text)
        for place in self.in_time:
            yield _said(text[slice(*self.cues[place].text_at)], self.format)

    def places(self) -> Places:
        """Where the characters of `spoken` are in the file."""
        starts: list[int] = []
        at = 0
        for place in self.in_time:
            starts.append(at)
            begin, end = self.cues[place].text_at
            at += end - begin + 2
        return Places(self, starts)

    def with_times(self, times: Sequence[tuple[int, int]]) -> str:
        """The file with other times, (start, end) in ms for each of `cues`. Times within a cue's text move with it."""
        parts: list[str] = []
        at = 0
        for (begin, end), time in sorted(self._changes(times)):
            parts += self.text[at:begin], time
            at = end
        return "".join((*parts, self.text[at:]))

    def _changes(self, times: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], str]]:
        for cue, (start, end) in zip(self.cues, times, strict=True):
            for at, time in ((cue.start_at, start), (cue.end_at, end)):
                yield at, _like(self.text[slice(*at)], time, "," if self.format is TranscriptFormat.SRT else ".")
            if self.format is TranscriptFormat.VTT:
                length = max(1, cue.end - cue.start)
                for match in _WORD_TIME.finditer(self.text, *cue.text_at):
                    moved = start + (_milliseconds(match[1]) - cue.start) * (end - start) // length
                    yield match.span(1), _like(match[1], min(max(moved, start), end), ".")


@dataclass(frozen=True, slots=True)
class Places:
    """Turns offsets in `SubtitleFile.spoken` into cues and offsets in the file."""

    file: SubtitleFile
    starts: Sequence[int]

    def cue(self, at: int) -> int:
        """The place, in the order of time, of the cue that the character belongs to."""
        return max(0, bisect_right(self.starts, at) - 1)

    def offset(self, at: int) -> int:
        """In the file, of an offset in `spoken`."""
        cue = self.cue(at)
        begin, end = self.file.cues[self.file.in_time[cue]].text_at
        return min(end, begin + at - self.starts[cue])


def _lines(text: str) -> str:
    """The text, as long as it is, with the line ends of old Macs as those of others."""
    return _LINE_END.sub("\n", text)


def _timed(text: str, *, vtt: bool) -> Iterator[SourceCue]:
    """Of SRT and WebVTT. A text ends at an empty line in WebVTT; in SRT, which may have some in it, before the next cue.

    One of blanks does not end it (YouTube's captions begin with it), unless none is empty before the next cue.
    """
    found = list(_CUE.finditer(text))
    for match, following in pairwise([*found, None]):
        assert match is not None
        begin = match.end()
        limit = len(text) if following is None else following.start()
        if vtt:
            blank = _EMPTY_LINE.search(text, begin, limit)
            if following is not None and (blank is None or blank.start() == limit):
                blank = next(iter([*_BLANK_LINE.finditer(text, begin, limit - 1)][-1:]), None)
            limit = limit if blank is None else blank.start()
        elif following is not None and (number := _NUMBER_LINE.match(text, text.rfind("\n", begin, limit - 1) + 1, limit)):
            limit = max(begin, number.start())
        content = text[begin:limit]
        begin += len(content) - len(content.lstrip())
        end = max(begin, begin + len(content.strip()))
        yield _cue(match, match, (begin, end))


def _ass(text: str) -> Iterator[SourceCue]:
    """Events with a text. Comments and drawings are not shown or not said: comments are left alone, drawings have no text."""
    fields: Sequence[str] = _ASS_FIELDS
    if header := _ASS_FORMAT.search(text):
        fields = [name.strip().lower() for name in header[1].split(",")]
    if not {"start", "end", "text"} <= set(fields):
        raise SubtitleError("the events of the file have no start, no end or no text")
    last = fields.index("text")
    for match in _ASS_LINE.finditer(text):
        edges = [match.start(1) - 1]
        while len(edges) <= last and (comma := text.find(",", edges[-1] + 1, match.end())) >= 0:
            edges.append(comma)
        if len(edges) <= last:
            continue
        start, end = (_ASS_TIME.match(text, edges[at] + 1, edges[at + 1]) for at in map(fields.index, ("start", "end")))
        if start is None or end is None:
            continue
        first = edges[last] + 1
        shown = text[first : match.end()].rstrip()
        yield _cue(start, end, (first, first + len(shown) if _said(shown, TranscriptFormat.ASS).strip() else first))


def _said(text: str, kind: TranscriptFormat) -> str:
    """The text of a cue, as long as it is, with blanks for what is not said."""
    return _UNSAID[kind].sub(lambda found: " " * len(found[0]), text) if kind in _UNSAID else text


def _cue(start: re.Match[str], end: re.Match[str], text_at: tuple[int, int]) -> SourceCue:
    """`start`, `end`: the first group of each is the time."""
    at = _milliseconds(start[1])
    group = 2 if start is end else 1
    return SourceCue(at, max(at, _milliseconds(end[group])), start.span(1), end.span(group), text_at)


def _has_fraction(time: str) -> bool:
    return "." in time or "," in time or len(_PART.findall(time)) == 4


def _milliseconds(time: str) -> int:
    *clock, fraction = _PART.findall(time) if _has_fraction(time) else [*_PART.findall(time), "0"]
    seconds = 0
    for part in clock:
        seconds = seconds * 60 + int(part)
    return (seconds * 1000 + int(fraction.ljust(3, "0"))) * (-1 if time.startswith("-") else 1)


def _like(model: str, milliseconds: int, point: str) -> str:
    """The time, spelled as the file spells its own: with or without hours, its separators, its digits of the fraction.

    `point`: before the fraction, if it needs one and the file has none.
    """
    sign, model = "-" if milliseconds < 0 else "", model.lstrip("-")
    parts = _PART.findall(model)
    digits = len(parts.pop()) if _has_fraction(model) else 0
    written = digits or (3 if milliseconds % 1000 else 0)
    units = abs(milliseconds) // 10 ** (3 - written)  # rounded down, which keeps the order
    whole, fraction = divmod(units, 10**written)
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    before = f"{hours:02d}:" if hours and len(parts) < 3 else ""
    numbers = iter([hours, minutes, seconds][-len(parts) :] + ([fraction] if digits else []))
    time = _PART.sub(lambda part: f"{next(numbers):0{len(part[0])}d}", model)
    return sign + before + time + (f"{point}{fraction:03d}" if written and not digits else "")
