"""Subtitle files that were pasted as a transcript: what in them is not text.

SRT and WebVTT: numbers and identifiers, cue times with their settings, the header, NOTE, STYLE and REGION blocks; also where the
lines were joined to one. SBV, ASS and LRC: their times and fields. Times on lines of their own, or at the beginning of most
lines, as web players show transcripts. A number counts as a cue's only before its times: "10:30" in a line is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from aligner_client.markup.kinds import Kind, Mark

_T = r"(?:(?:\d{1,3}:)?\d{1,2}:\d\d[.,]\d{1,3}|\d\d:\d\d:\d\d(?:[:;]\d\d)?)"
_CUE = re.compile(
    rf"""
    (?: (?<![^\s\ufeff]) (?P<number>\d{{1,7}}) (?P<gap>[ \t]*\r?\n[ \t]*|[ \t]{{1,3}}) )?
    (?P<times> (?<![\d:]) {_T} [ \t]* (?:--?>|[–—]>|→) [ \t]* {_T}
      (?: [ \t]+ (?:align|line|position|size|vertical|region|[XY][12]|[DLASTR]) : [^\s]{{1,40}} )* )
    | ^ (?P<sbv> {_T} , {_T} ) [ \t]* $
    """,  # noqa: RUF001  dashes that a word processor made of --
    re.VERBOSE | re.MULTILINE,
)
_HEADER = re.compile(r"[\ufeff\s]*WEBVTT(?=\s|$)")
_BLOCK = re.compile(r"NOTE(?:[ \t].*)?|STYLE|REGION")
_DIALOGUE = re.compile(r"(?:Dialogue|Comment):[ \t]*\d{1,6},[^,\n]*,[^,\n]*(?:,[^,\n]*){6},")
_ASS = re.compile(r"^\[(?:Script Info|Events|V4\+? Styles)\]", re.MULTILINE)
_CLOCK = r"\(?(?:\d{1,2}:)?\d{1,2}:\d\d(?:[.,]\d{1,3})?\)?"
_OWN_LINE = re.compile(rf"{_CLOCK}\r?")
_LONG_CLOCK = re.compile(r"[\[(]?\d{1,2}:\d\d:\d\d(?:[.,:]\d{1,3})?[\])]?(?=[ \t])")
_LEADING = re.compile(rf"(?P<time>{_CLOCK})[ \t]+(?=\S)")


def fields(text: str) -> Iterator[Mark]:
    """Linear in the length."""
    if ":" in text or "WEBVTT" in text:
        yield from _cues(text)
        yield from _lines(text)


def _cues(text: str) -> Iterator[Mark]:
    """Cue times, each with the number before it, wherever they are."""
    expected = None
    for match in _CUE.finditer(text):
        if match["sbv"]:
            yield Mark(*match.span("sbv"), Kind.FILE, "\n")
            continue
        if match["number"]:
            number, own_line = int(match["number"]), "\n" in match["gap"]
            if (
                (own_line and _starts_line(text, match.start("number")))
                or number == expected
                or (expected is None and number < 2)
            ):
                yield Mark(*match.span("number"), Kind.FILE, "\n\n")
                expected = number + 1
        yield Mark(*match.span("times"), Kind.FILE, "\n" if match["number"] else "\n\n")


def _starts_line(text: str, at: int) -> bool:
    return not text[text.rfind("\n", 0, at) + 1 : at].strip("\ufeff \t\r")


def _lines(text: str) -> Iterator[Mark]:
    """Lines that are no text, and fields at the beginning of lines."""
    header = _HEADER.match(text)
    ass = _ASS.search(text) is not None
    clocks = _clocks(text)
    rows = text.split("\n")
    block = header is not None  # the header is the first, and like the others it ends with a blank line
    fresh = True  # after a blank line
    at = 0
    for place, row in enumerate(rows):
        content = row.strip("\ufeff \t\r")
        start = at + row.find(content)
        at += len(row) + 1
        if not content:
            block, fresh = False, True
            continue
        if header and not block and fresh:
            block = _BLOCK.fullmatch(content) is not None
        is_identifier = header is not None and fresh and place + 1 < len(rows) and "-->" in rows[place + 1][:120]
        length = 0
        if "-->" in row:
            length = len("WEBVTT") if block and content.startswith("WEBVTT") else 0
            block = False
        elif block or is_identifier or (clocks and _OWN_LINE.fullmatch(content)):
            length = len(content)
        elif field := _DIALOGUE.match(content):
            length = len(content) if content.startswith("Comment") else field.end()
        elif ass:
            length = len(content)
        elif field := (_LEADING.match(content) if clocks == "leading" else _LONG_CLOCK.match(content)):
            length = len(field[0].rstrip())
        fresh = False
        if length:
            yield Mark(start, start + length, Kind.FILE, "")


def _clocks(text: str) -> str:
    """How times stand in the lines: "own" lines, "leading" them, or "" for neither. At least two, and half of all lines."""
    if ":" not in text or "\n" not in text:
        return ""
    every = [line.strip() for line in text.splitlines() if line.strip()]
    own = sum(_OWN_LINE.fullmatch(line) is not None for line in every)
    leading = sum(_LEADING.match(line) is not None for line in every)
    if leading > 1 and 2 * leading >= len(every):
        return "leading"
    return "own" if own > 1 else ""
