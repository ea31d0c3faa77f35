r"""Tags of HTML and WebVTT (<i>, <v Mary>, <00:00:02.000>) and overrides of ASS and MicroDVD ({\k20}, {y:i}).

A tag needs a name that HTML, WebVTT, TTML or SSML has, or attributes; one name alone in angle brackets that none of them has and
that is not closed anywhere (<laughter>, <unk>) stands for a sound. So "x < y and z > w" has no tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from aligner_client.markup.kinds import Kind, Mark
from aligner_client.markup.sounds import follows_text, is_sound, note
from aligner_client.markup.vocabulary import BREAKING_TAGS, INLINE_TAGS, OTHER_TAGS

_TIME = r"(?:\d{1,3}:)?\d{1,2}:\d\d(?:[.,:]\d{1,3})?"
_TAG = re.compile(
    rf"""
    <sup> \s* (?P<raised> [\d,;*†‡]{{1,8}} | [a-e] ) \s* </sup>
    | < (?: (?P<time>{_TIME}) | !--[^<>]*-- | ![A-Za-z][^<>]* | \?[a-z][^<>]*\?
      | (?P<close>/?) (?P<name>[A-Za-z][\w-]*) (?P<rest>[^<>]*) ) >
    | (?P<override> \{{ (?: \\ | [A-Za-z]: ) [^{{}}]* \}} )
    | (?P<line> \\[Nn] | \\h )
    """,
    re.VERBOSE,
)
_ATTRIBUTES = re.compile(r"\s[^=]*=.*|\s*/?", re.DOTALL)
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_ASS = re.compile(r"\{\\|^Dialogue:", re.MULTILINE)


def tags(text: str) -> Iterator[Mark]:
    """Linear in the length."""
    if not any(sign in text for sign in "<\\{"):
        return
    ass = _ASS.search(text) is not None
    closed = frozenset(name.lower() for name in re.findall(r"</([A-Za-z][\w-]*)", text))
    for match in _TAG.finditer(text):
        start, end = match.span()
        name, rest = (match["name"] or "").lower(), match["rest"] or ""
        if match["raised"]:
            exponent = Mark(start, end, Kind.TAG, match["raised"].translate(_RAISED))
            yield note(text, start, end) if follows_text(text, start) else exponent
        elif match["line"]:
            if ass or (match["line"] == r"\N" and text[start - 1 : start].isalnum()):
                yield Mark(start, end, Kind.TAG, " " if match["line"] == r"\h" else "\n")
        elif not name:
            yield Mark(start, end, Kind.TAG, "")
        elif name == "v" and not match["close"] and _annotation(rest):
            yield Mark(start, end, Kind.LABEL, " ")
        elif name in INLINE_TAGS or name in BREAKING_TAGS or name in OTHER_TAGS:
            if rest.startswith(".") or name in {"v", "lang", "c"} or _ATTRIBUTES.fullmatch(rest):
                yield Mark(start, end, Kind.TAG, "" if name in INLINE_TAGS else "\n" if name in BREAKING_TAGS else " ")
        elif match["close"] or name in closed or (rest and _ATTRIBUTES.fullmatch(rest)):
            yield Mark(start, end, Kind.TAG, " ")
        elif not rest or is_sound(name + rest):
            yield Mark(start, end, Kind.SOUND, " ")


def _annotation(rest: str) -> str:
    """The speaker of a voice tag: Mary in <v.loud Mary>."""
    return rest.partition(" ")[2].strip()
