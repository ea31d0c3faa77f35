# ruff: noqa: RUF001  typographic marks are the subject here
"""Sounds and remarks in brackets: [laughter], (sighs), *coughs*, <noise>, [inaudible].

What is in square brackets, up to eight words, is a remark: subtitlers and transcribers write nothing there that is said. Round
brackets, asterisks and braces need a sound as first or last word ("he laughs", "speaking Spanish"), or two or more words in
capitals in a text that is not: "(he said)" is said. An editor's letters, "[T]he" and "call[ed]", are parts of their word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from aligner_client.markup.kinds import Kind, Mark
from aligner_client.markup.vocabulary import (
    EXPONENT_BASES,
    LANGUAGES,
    NUMBERED,
    SAID,
    SOUND_ENDS,
    SOUND_NOUNS,
    SOUND_OPENERS,
    SOUND_ROOTS,
    SOUND_VERBS,
)

_BRACKETS = re.compile(
    r"""
      \[ (?P<square>[^\[\]]{1,120}) \] | 【 (?P<lenticular>[^【】]{1,120}) 】 | ［ (?P<wide>[^［］]{1,120}) ］
    | \( (?P<round>[^()]{1,80}) \) | （ (?P<wide_round>[^（）]{1,80}) ）
    | (?<![\w*]) \*{1,2} (?P<star>[^*\n]{1,40}) \*{1,2} (?![\w*])
    | \{ (?P<brace>[^{}]{1,80}) \}
    | [♪♫♬] (?P<music>[^♪♫♬\n]{1,60}) (?=[♪♫♬])
    """,
    re.VERBOSE,
)
_ANY_BRACKET = re.compile("[\\[【［(（*{♪♫♬]")
_SQUARE = frozenset({"square", "lenticular", "wide"})
_FOOTNOTE = re.compile(r"\^?(?:\d{1,3}(?:\s*[,;–-]\s*\d{1,3})*|[a-z]|[*†‡§]+|[Nn]ote \d+|citation needed|sic)\^?")
_TIME = re.compile(r"\W*(?:\d{1,3}:)?\d{1,2}:\d\d(?:[.,:]\d{1,3})?\W*")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_MOST_WORDS, _MOST_IN_SQUARES = 5, 8
_GLUED_NUMBER = re.compile(r"[.?!\"”)](?P<number>\d{1,2})(?=\s+[\"“‘(]?[^\W\d_a-z]|\s*\Z)")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴-⁹]+(?:[,⁻–-]?[⁰¹²³⁴-⁹]+)*|(?<=[^\\W\\d_])[ᵃᵇᶜᵈᵉ](?!\\w)")
_WORD_ENDS = re.compile(r"[\].,;:!?)\"'”’»…]{0,3}(?:\s|\Z)")
_LAST_WORD = re.compile(r"([a-z]{1,14})[.?!\"”’)]{1,2}\Z")
_BASE = re.compile(r"[^\W_]{1,16}\Z")


def _forms(stems: frozenset[str]) -> frozenset[str]:
    """Sighs, sighing: the forms that describe a sound that someone makes."""
    found: set[str] = set()
    for stem in stems:
        doubles = stem[-1] in "bgmnpt" and stem[-2] in "aeiou" and stem[-3:-2] not in "aeiou"
        third = stem[:-1] + "ies" if stem.endswith("ry") else stem + ("es" if stem.endswith(("sh", "ch", "ss", "zz")) else "s")
        found |= {third, (stem + stem[-1] if doubles else stem.removesuffix("e")) + "ing"}
    return frozenset(found)


_VERBS = _forms(SOUND_VERBS)
_FIRST = _VERBS | SOUND_NOUNS | SOUND_ROOTS | SOUND_OPENERS
_LAST = _VERBS | SOUND_NOUNS | SOUND_ROOTS | _forms(SOUND_ENDS)


def is_sound(content: str) -> bool:
    """Whether a few words describe a sound."""
    words = [word.lower() for word in _WORD.findall(content)]
    if not 0 < len(words) <= _MOST_WORDS or SAID.intersection(words) or any(char.isdigit() for char in content):
        return False
    if words[0] == "in" and len(words) == 2:
        return words[1] in LANGUAGES
    return words[-1] in _LAST or words[0] in _FIRST


def sounds(text: str) -> Iterator[Mark]:
    """Linear in the length."""
    if not _ANY_BRACKET.search(text):
        return
    shouted = sum(map(str.isupper, text)) > sum(map(str.islower, text))
    for match in _BRACKETS.finditer(text):
        start, end = match.span()
        content, kind = match[match.lastgroup or 0], match.lastgroup
        if "\n\n" in content:
            continue
        before, after = text[start - 1 : start], text[end : end + 1]
        if _TIME.fullmatch(content):
            yield Mark(start, end, Kind.FILE, " " if after == ":" else "\n")  # Mary (0:05): is one label
        elif kind in _SQUARE:
            if _FOOTNOTE.fullmatch(content.strip()):
                yield note(text, start, end)
            elif _is_remark(content, editorial=_cased(before) or _cased(after)):
                label = after == ":" and _opens(text, start)
                yield Mark(start, end + label, Kind.LABEL if label else Kind.SOUND, " ")
        elif is_sound(content) or (kind == "round" and not shouted and _capitals(content)):
            yield Mark(start, end, Kind.SOUND, " ")


def _is_remark(content: str, *, editorial: bool) -> bool:
    """What is in square brackets; `editorial`: letters touch it, as in call[ed]."""
    return is_sound(content) if editorial else content != "I" and len(content.split()) <= _MOST_IN_SQUARES


def _opens(text: str, at: int) -> bool:
    """Whether a turn may begin at a place: not after a name, as in "MARY [whispering]:"."""
    before = text[max(0, at - 40) : at].rpartition("\n")[2].split()
    return not before or not before[-1][0].isupper() or before[-1][-1] in ".?!"


def _cased(char: str) -> bool:
    return char.lower() != char.upper()


def _capitals(content: str) -> bool:
    words = _WORD.findall(content)
    return len(words) > 1 and content.isupper() and max(map(len, words)) > 2


def footnotes(text: str) -> Iterator[Mark]:
    """Superscripts that are no exponents, and numbers glued to the end of a sentence ("old.3 Then"). Linear in the length."""
    for match in () if text.isascii() else _SUPERSCRIPT.finditer(text):
        if follows_text(text, match.start()):
            yield note(text, *match.span())
    for match in _GLUED_NUMBER.finditer(text):
        at = match.start("number")
        word = _LAST_WORD.search(text, max(0, at - 16), at)
        if word and len(word[1]) > 2 and word[1] not in NUMBERED:
            yield note(text, *match.span("number"))


def note(text: str, start: int, end: int) -> Mark:
    """A footnote's mark. Nothing is read for it where its word ends, and a blank elsewhere: no word goes on after it."""
    return Mark(start, end, Kind.NOTE, "" if _WORD_ENDS.match(text, end) else " ")


def follows_text(text: str, at: int) -> bool:
    """Whether a superscript at a place is a footnote's mark: after a word that is no unit, or punctuation.

    That is "ten²" and not "m²", "x²", "mc²", "10³".
    """
    base = _BASE.search(text, max(0, at - 16), at)
    word = base[0] if base else ""
    if not word:
        before = text[at - 1 : at]
        return before != "" and before in ".,;:!?)]\"'”’»…"
    vowel = any(char in "aeiouAEIOU" for char in word) or not word.isascii()
    long_enough = len(word) > 2 or (len(word) == 2 and word.islower())
    return word.isalpha() and vowel and long_enough and word.lower() not in EXPONENT_BASES
