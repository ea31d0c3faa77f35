# ruff: noqa: RUF001  typographic marks are the subject here
"""Who speaks: MARY:, John Smith:, Speaker 1:, >> JOHN:, Q. and A., a line "Speaker 1  0:05".

A label opens a line, follows >> or a dash that does, or follows the end of a sentence; it has up to four words, a colon and a
blank. By its shape and its words:

- a word for a role with or without a number (Speaker 1, Interviewer), a title or a common given name first (Dr. Jones, Mary,
  John Smith), capitals throughout (JOHN SMITH), one capital (A, Q1);
- another capitalised name only if it opens two lines or more, or most lines have one, or after >>;
- never with a word that speech has before a colon (Note, Step one, Breaking news, He said).

Q. and A. with a dot are labels if a line opens with Q. or Q:.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from aligner_client.markup.kinds import Kind, Mark
from aligner_client.markup.vocabulary import COUNTS, FIRST_NAMES, NOT_LABELS, PARTICLES, ROLES, TITLES

_OPENING = re.compile(r"\n|>{2,3}(?!>)|[.?!…。？！\"”’)\]](?=[ \t])")
_PART = r"[^\W_][\w.'’&/#-]{0,30}"
_LABEL = re.compile(
    rf"""
    [ \t\u00a0\u3000]{{0,40}} (?P<dash>[-–—*•‣]{{1,3}}[ \t]{{0,9}})? (?P<again>>{{2,3}}[ \t]{{0,9}})?
    (?P<label> (?P<name>{_PART} (?:[ \t]{{1,9}} \#?{_PART}){{0,3}}) (?:[ \t]{{0,9}} [(\[] [^()\[\]\n]{{1,30}} [)\]])?
      [ \t\u00a0\u202f]{{0,40}}
      (?: :(?=[\s"“‘'¿¡♪]|$) | ：
        | (?P<clock> [ \t]{{1,9}} [\[(]? (?:\d{{1,2}}:)?\d{{1,2}}:\d\d [\])]? (?=[ \t\r]{{0,9}}(?:\n|$)) ) ) )
    """,
    re.VERBOSE,
)
_EXAMINATION = re.compile(
    r"[ \t]{0,40} (?P<label>(?P<letter>[QA])\d{0,3}[.:)]) (?=[ \t]{1,9}[\"“‘'(]?[^\W\d_a-z])",
    re.VERBOSE,
)
_ROLE = re.compile(r"(?P<role>[^\W\d_]+?)(?:[ _#-]*(?:\d{1,4}|(?<=[ _#-])[A-Z]))?")
_NUMBERED_ANYWHERE = re.compile(r"(?<!\S)(?P<role>[^\W\d_]{2,15})[ _#-]?\d{1,4}:(?=\s|$)")
_CAPITALS_ANYWHERE = re.compile(r"(?<!\S)[A-Z][A-Z.'-]{1,20}(?: [A-Z][A-Z.'-]{1,20}){0,2}:(?=\s|$)")
_MOST_NAME = 100
"""Characters of a name: it comes back with every word."""
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+(?P<name>[^>]+)>")
_LETTER = re.compile(r"[A-Z]\d{0,3}|[A-Z]{1,3}\d{1,3}")


class _Found(NamedTuple):
    """A match at a place where a label may be. `opening`: the character before it, a line break for a line, > for a turn."""

    match: re.Match[str]
    opening: str


def labels(text: str) -> Iterator[Mark]:
    """`text`: other marks are blanked out in it. Linear in the length."""
    marks: dict[int, Mark] = {}
    if "Q" in text:
        examination = list(_at_openings(_EXAMINATION, text))
        if any(match["letter"] == "Q" and opening == "\n" for match, opening in examination):
            marks |= {match.start("label"): _mark(match) for match, _ in examination}
    if ":" in text or "：" in text:
        candidates = [found for found in _at_openings(_LABEL, text) if _may_be_a_name(_words(found.match["name"]))]
        counts = Counter(found.match["name"] for found in candidates if found.opening == "\n")
        lines = sum(not line.isspace() for line in text.splitlines() if line)
        script = counts.total() > 1 and 5 * counts.total() >= 3 * lines  # most lines have a label
        marks |= {
            match.start("label"): _mark(match)
            for match, opening in candidates
            if _is_label(match, opening, repeated=script or counts[match["name"]] > 1)
        }
        for match in _anywhere(text, marks):
            marks.setdefault(match.start(), Mark(*match.span(), Kind.LABEL, " "))
    return iter([marks[start] for start in sorted(marks)])


def speaker(label: str) -> str:
    """The name in a label as the text has it: MARY in "MARY:", John in ">> John (sighing):", Mary in "<v.loud Mary>"."""
    if voice := _VOICE.fullmatch(label.strip()):
        return " ".join(voice["name"].split())[:_MOST_NAME]
    found = _EXAMINATION.match(f"{label} A") or _LABEL.match(f"{label}\n")
    name = (
        found["label"].rstrip(".:)")
        if found and found.re is _EXAMINATION
        else found["name"]
        if found
        else label.strip(" \t:：[]()<>-–—")
    )
    return " ".join(name.split())[:_MOST_NAME]


def _at_openings(pattern: re.Pattern[str], text: str) -> Iterator[_Found]:
    if match := pattern.match(text):
        yield _Found(match, "\n")
    for opening in _OPENING.finditer(text):
        if match := pattern.match(text, opening.end()):
            yield _Found(match, opening[0][0])


def _mark(match: re.Match[str]) -> Mark:
    return Mark(*match.span("label"), Kind.LABEL, " ")


def _anywhere(text: str, found: Mapping[int, Mark]) -> Iterator[re.Match[str]]:
    """Labels in the middle of a line, where the line breaks of a dialogue were lost: SPEAKER_01:, and JOHN: after MARY:."""
    yield from (match for match in _NUMBERED_ANYWHERE.finditer(text) if match["role"].lower() in ROLES)
    if any(text[mark.start : mark.end].isupper() and mark.end - mark.start > 2 for mark in found.values()):
        yield from (match for match in _CAPITALS_ANYWHERE.finditer(text) if _may_be_a_name(_words(match[0][:-1])))


def _may_be_a_name(words: list[str]) -> bool:
    if words[0] == "the" and len(words) > 1:  # THE PRESIDENT:
        words = words[1:]
    return len(words[0]) == 1 or NOT_LABELS.isdisjoint(words) or not ROLES.isdisjoint(words)


def _words(name: str) -> list[str]:
    return [word.rstrip(".").lower() for word in name.split()]


def _is_label(match: re.Match[str], opening: str, *, repeated: bool) -> bool:
    name: str = match["name"]
    line = opening == "\n"
    turn = opening == ">" or match["again"] is not None
    if _is_role(name, line=line):
        return True
    if _LETTER.fullmatch(name):
        return line or turn
    if name.isupper():
        return True
    parts, words = name.split(), _words(name)
    if not all(part[0].isupper() or part[0].isdigit() or part in PARTICLES for part in parts):
        return False
    named = words[0] in FIRST_NAMES or (words[0] in TITLES and len(words) > 1) or words[-1] in ROLES
    return named or match["clock"] is not None or turn or (line and repeated)


def _is_role(name: str, *, line: bool) -> bool:
    """Interviewer, Speaker 1, SPEAKER_00, Guest B; in small letters at the beginning of a line only."""
    words = _words(name)
    if len(words) == 2 and words[1] in COUNTS:  # Speaker One
        name = name.split(maxsplit=1)[0]
    role = _ROLE.fullmatch(name)
    return role is not None and role["role"].lower() in ROLES and (line or name[0].isupper() or not name.isascii())
