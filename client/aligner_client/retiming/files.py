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


_TIME = r"(?:\d{1,3}:)?\d{1,2}:\d{1,2}[.,]\d{1,3}"
_CUE = re.compile(rf"^[\ufeff \t]*({_TIME})[ \t]*-->[ \t]*({_TIME})(?=[ \t\r\n]|\Z)[^\n]*(?:\n|\Z)", re.MULTILINE)
_WORD_TIME = re.compile(rf"<({_TIME})>")
_ASS_TIME = r"\d{1,3}:\d{1,2}:\d{1,2}[.:]\d{1,3}"
_ASS_LINE = re.compile(rf"^Dialogue:[^,\n]*,[ \t]*({_ASS_TIME})[ \t]*,[ \t]*({_ASS_TIME})[ \t]*,([^\n]*)", re.MULTILINE)
_ASS_FORMAT = re.compile(r"^\[Events\][^\[]*?^Format:([^\n]*)", re.MULTILINE | re.IGNORECASE)
_DRAWING = re.compile(r"\{[^{}]*\\p[1-9]")
_TEXT_FIELD = 9
"""Of an event in ASS, and the number of commas before it; SSA has as many."""
_BLANK_LINE = re.compile(r"^[ \t\r]*(?:\n|\Z)", re.MULTILINE)
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
        cues = tuple(_ass(text) if text_format is TranscriptFormat.ASS else _timed(text, vtt=text_format is TranscriptFormat.VTT))
        if not cues:
            raise SubtitleError(f"there is no cue of a {text_format.value} file in the transcript")
        return cls(text, text_format, cues, tuple(sorted(range(len(cues)), key=lambda place: (cues[place].start, place))))

    @property
    def spoken(self) -> str:
        """The text of the cues in the order of their times, a paragraph each; tags and labels are still in it."""
        return "\n\n".join(self.text[slice(*self.cues[place].text_at)] for place in self.in_time)

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
                yield at, _like(self.text[slice(*at)], time)
            if self.format is TranscriptFormat.VTT:
                length = max(1, cue.end - cue.start)
                for match in _WORD_TIME.finditer(self.text, *cue.text_at):
                    moved = start + (_milliseconds(match[1]) - cue.start) * (end - start) // length
                    yield match.span(1), _like(match[1], min(max(moved, start), end))


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


def _timed(text: str, *, vtt: bool) -> Iterator[SourceCue]:
    """Of SRT and WebVTT. A text ends at a blank line in WebVTT; in SRT, which may have some in it, before the next cue."""
    found = list(_CUE.finditer(text))
    for match, following in pairwise([*found, None]):
        assert match is not None
        begin = match.end()
        limit = len(text) if following is None else following.start()
        if vtt:
            blank = _BLANK_LINE.search(text, begin, limit)
            limit = limit if blank is None else blank.start()
        elif following is not None and (number := _NUMBER_LINE.match(text, text.rfind("\n", begin, limit - 1) + 1, limit)):
            limit = max(begin, number.start())
        content = text[begin:limit]
        begin += len(content) - len(content.lstrip())
        end = max(begin, begin + len(content.strip()))
        yield _cue(match, (begin, end))


def _ass(text: str) -> Iterator[SourceCue]:
    """Events with a text. Comments and drawings are not shown or not said: comments are left alone, drawings have no text."""
    fields = _TEXT_FIELD
    if header := _ASS_FORMAT.search(text):
        names = [name.strip().lower() for name in header[1].split(",")]
        if names[1:3] != ["start", "end"] or "text" not in names:
            raise SubtitleError("the events of the file do not begin with a layer, a start and an end")
        fields = names.index("text")
    for match in _ASS_LINE.finditer(text):
        begin, end = match.span(3)
        for _ in range(fields - 3):
            comma = text.find(",", begin, end)
            begin = end if comma < 0 else comma + 1
        while end > begin and text[end - 1].isspace():
            end -= 1
        if _DRAWING.search(text, begin, end):
            begin = end
        yield _cue(match, (begin, end))


def _cue(match: re.Match[str], text_at: tuple[int, int]) -> SourceCue:
    start = _milliseconds(match[1])
    return SourceCue(start, max(start, _milliseconds(match[2])), match.span(1), match.span(2), text_at)


def _milliseconds(time: str) -> int:
    clock, _, fraction = re.sub(r"[,:](?=\d+\Z)", ".", time).rpartition(".")
    seconds = 0
    for part in clock.split(":"):
        seconds = seconds * 60 + int(part)
    return seconds * 1000 + int(fraction.ljust(3, "0"))


def _like(model: str, milliseconds: int) -> str:
    """The time, spelled as the file spells its own: with or without hours, its separators, its digits of the fraction."""
    digits = len(re.split(r"[.,:]", model)[-1])
    separator = model[-digits - 1]
    units = milliseconds // 10 ** (3 - digits)  # rounded down, which keeps the order
    whole, fraction = divmod(units, 10**digits)
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    widths = [len(part) for part in model[: -digits - 1].split(":")]
    parts = [hours, minutes, seconds] if len(widths) == 3 or hours else [minutes, seconds]
    widths = [2] * (len(parts) - len(widths)) + widths
    return ":".join(f"{part:0{width}d}" for part, width in zip(parts, widths, strict=True)) + f"{separator}{fraction:0{digits}d}"
