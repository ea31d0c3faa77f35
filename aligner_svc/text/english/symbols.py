"""Words made of several parts: compounds, ranges, codes, phone numbers, internet addresses."""

from __future__ import annotations

import re
from collections.abc import Callable

from aligner_svc.text.english.acronyms import capitals, spelled
from aligner_svc.text.english.context import ALONE, Context
from aligner_svc.text.english.numbers import Words, digits, figure, fraction, integer, ordinal, plural
from aligner_svc.text.english.wordlists import GREEK
from aligner_svc.text.folding import EN_DASH, MINUS, PLUS_MINUS

_SAID = {
    "&": "and", "+": "plus", "=": "equals", "@": "at", "%": "percent", "°": "degrees", MINUS: "minus", "*": "times",
    PLUS_MINUS: "plus or minus", "÷": "divided by",
    "^2": "squared", "^3": "cubed",
}  # fmt: skip
_SAID_IN_ADDRESSES = {
    **_SAID, ".": "dot", "/": "slash", "-": "dash", "_": "underscore", ":": "colon", "?": "question mark", "#": "hash",
    "~": "tilde", "*": "star",
}  # fmt: skip
_PARTS = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)*|\d+(?:\.\d+)*|\^[23]|[^A-Za-z\d\s^]")
_DOTTED_NAME = re.compile(r"(?<=\w)\.[A-Za-z]")
_INITIALS_FIRST = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]\.?(?:[-/&]|$)")
_LETTER = re.compile(r"[A-Za-z]")
_SCHEME = re.compile(r"[a-z]+://", re.IGNORECASE)
_PHONE = re.compile(r"\+?\d{1,3}(?:[-.]\d{3}){1,2}[-.]\d{4}|\d{3}[-.]\d{4}|\+\d{7,15}|\d{1,5}(?:[-.]\d{1,5}){3,}")
_EMERGENCY = "911"
_FRACTION = re.compile(r"(?:(\d+) )?(\d{1,4})/(\d{1,4})")
_UNDERS = frozenset({2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 32, 64, 100, 1000})
_ORDINAL = re.compile(r"([\d,]+)(?:st|nd|rd|th)", re.IGNORECASE)
_PLURAL_FIGURE = re.compile(r"(\d+)'?s")
_GREEK = {chr(0x3B1 + place): name for place, name in enumerate(GREEK)}

Reader = Callable[[str], Words]


def phone(word: str, context: Context) -> Words | None:
    """555-1234, +1-800-555-0199, the 555 of (555) 123-4567, 911, seven or more digits; None if it is an ordinary number."""
    if len(word) <= 32 and _PHONE.fullmatch(word) and word.count(".") != 3:
        return (("plus",) if word[0] == "+" else ()) + digits(word)
    if not word.isdecimal():
        return None
    if (len(word) >= 7 and not word.endswith("000")) or word == _EMERGENCY or (len(word) == 3 and _dialled(context)):
        return digits(word)
    return None


def _dialled(context: Context) -> bool:
    """Three digits before 123-4567, or one of the groups of 555 123 4567."""
    after = context.at(1)
    return (len(after) == 8 and _PHONE.fullmatch(after) is not None) or _groups(context, 0) or _groups(context, -1)


def _groups(context: Context, first: int) -> bool:
    group = [context.at(first + place) for place in range(3)]
    return all(part.isdecimal() for part in group) and [len(part) for part in group] == [3, 3, 4]


def last_of_phone(word: str, context: Context) -> Words | None:
    """The 4567 of 555 123 4567, which is no year."""
    return digits(word) if len(word) == 4 and word.isdecimal() and _groups(context, -2) else None


def counted(word: str, context: Context) -> Words | None:
    """Ordinals, fractions, plural figures and plain ones: 21st, 1/2, 747s, 1,234.5."""
    if match := _ORDINAL.fullmatch(word):
        whole = match[1].replace(",", "")
        return ordinal(int(whole)) if 0 < len(whole) <= 15 else None
    if match := _FRACTION.fullmatch(word):
        return _read_fraction(match, context)
    if match := _PLURAL_FIGURE.fullmatch(word):
        return plural(integer(match[1]))
    return figure(word)


def _read_fraction(match: re.Match[str], context: Context) -> Words | None:
    over, under = int(match[2]), int(match[3])
    if under not in _UNDERS or not 0 < over < under:
        return None
    whole = (*integer(match[1]), "and") if match[1] else ("and",) if context.before.isdecimal() else ()
    words = fraction(over, under)
    # "two and a half", but "one half cup"
    return (*whole, "a", *words[1:]) if whole and over == 1 else (*whole, *words)


def address(word: str, context: Context) -> Words | None:
    """A URL, an e-mail address or a name with dots; the scheme is silent. None if it is none of these."""
    if _INITIALS_FIRST.match(word):
        return None  # "U.S.-based", "a.m./p.m."
    if "://" not in word and "@" not in word[1:] and not ("." in word and _LETTER.search(word) and _DOTTED_NAME.search(word)):
        return None
    return _spell_out(_SCHEME.sub("", word, count=1), _SAID_IN_ADDRESSES)


def compound(word: str, read: Reader) -> Words | None:
    """Parts joined by hyphens or slashes, each read on its own; two figures are a range. None if it has one part."""
    for joint in ("-", EN_DASH, "/"):
        if joint not in word:
            continue
        parts = [part for part in word.split(joint) if part]
        if len(parts) < 2:
            continue
        words = [read(part) for part in parts]
        if joint != "/" and len(parts) == 2 and _range_like(*parts):
            return (*words[0], "to", *words[1])
        return tuple(spoken for group in words for spoken in group)
    return None


def _range_like(left: str, right: str) -> bool:
    """10-20, $5-$10, 5%-10%, 10:30am-11pm; not F-16, not 5-foot."""
    return left.lstrip("$€£¥~")[:1].isdigit() and right.lstrip("$€£¥")[:1].isdigit()


def mixture(word: str, context: Context) -> Words:
    """Anything that no other rule reads: letters and figures, and the signs that are spoken."""
    if word.startswith("#") and len(word) > 1:
        first = "number" if word[1].isdigit() else "hashtag"
        return (first, *rest) if (rest := _spell_out(word[1:], _SAID)) else ()
    if len(word) == 2 and word[1] == "#":
        return (word[0].lower(), "sharp")
    if len(word) == 1 and (letter := _GREEK.get(word.lower())):
        return (letter,)
    if "*" in word and not any(char.isdigit() for char in word):
        word = word.replace("*", "")  # a masked letter, not a product
    return _spell_out(word, _SAID)


def _spell_out(word: str, said: dict[str, str]) -> Words:
    words: list[str] = []
    parts = _PARTS.findall(word)
    code = said is _SAID and any(part[0].isdigit() or part == "&" for part in parts)  # MP3, h2o, AT&T
    for part in parts:
        if part[0].isascii() and part[0].isalpha():
            words.extend(_letters(part, code))
        elif part[0].isdigit():
            words.extend(_figures(part))
        elif part in said:
            words.extend(said[part].split())
    return tuple(words)


def _letters(part: str, code: bool) -> Words:
    lower = part.lower()
    if part.isupper() and len(part) == 2 and code:
        return tuple(lower)
    if part.isupper() and len(part) > 1:
        return capitals(part, ALONE) or (lower,)
    is_short_code = len(part) <= 3 and part.islower() and (code or len(part) == 2) and spelled(lower)
    is_vowelless = len(part) <= 4 and not any(vowel in lower for vowel in "aeiouy")
    return tuple(lower) if part.isalpha() and (is_short_code or is_vowelless) else (lower,)


def _figures(part: str) -> Words:
    """2.0 is a decimal, 1.2.3 a version."""
    groups = part.split(".")
    if len(groups) <= 2:
        return figure(part) or digits(part)
    joint = "dot" if len(groups) == 4 else "point"
    words: list[str] = [*integer(groups[0])]
    for group in groups[1:]:
        words.extend((joint, *integer(group)))
    return tuple(words)
