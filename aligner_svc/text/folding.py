"""Unicode reduced to the few characters that the rules are written in.

`shadow` keeps every position, so that a match in it is a range of the transcript; `fold` may lengthen or shorten the text,
so that a ligature becomes its letters.
"""

# ruff: noqa: RUF001  characters that look alike are the subject here
from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import lru_cache

# The characters that a shadow uses for others:
MARK = "\u0300"
"""Combining marks: part of the word before them."""
INVISIBLE = "\u00ad"
"""Format characters (soft hyphen, joiner, BOM): they do not split a word."""
BREAK = "|"
"""What ends a word without being a space: brackets, emoji."""
EDGE = "<"
"""What ends even a URL: straight or curly double quotes, angle brackets, guillemets."""

FOREIGN = "\ufffd"
"""In a folded word: a letter outside the Latin and Greek alphabets."""

EN_DASH = "–"
MINUS = "−"
"""U+2212: a hyphen in a shadow, kept in a folded word."""
PLUS_MINUS = "±"
"""A plus in a shadow, kept in a folded word."""

_SIGNS = frozenset("'-.,:/%&@#+=*_°()")
_ALIKE = {
    **dict.fromkeys("’‘ʼʹ′＇´ˈ‛`", "'"),
    **dict.fromkeys("‐‑﹣－⁃", "-"),
    **dict.fromkeys("–‒", EN_DASH),
    "×": "*",
    "℃": "°",
    "℉": "°",
    "\u200b": " ",  # the zero-width space is there to separate words
}
_SHADOW_ALIKE = {**_ALIKE, MINUS: "-", PLUS_MINUS: "+", "÷": "=", **dict.fromkeys('<>"“”«»', EDGE)}
_SHADOW_OF_CATEGORY = {
    **dict.fromkeys(("Mn", "Mc", "Me"), MARK),
    **dict.fromkeys(("Zs", "Zl", "Zp", "Cc", "Cs", "Co", "Cn"), " "),
    "Cf": INVISIBLE,
    "Sc": "$",
}
# What compatibility decomposition does not change or makes ambiguous.
_FOLD: dict[str, str] = {
        **_ALIKE,
        "ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D",
        "ð": "th", "Ð": "Th", "þ": "th", "Þ": "Th", "ł": "l", "Ł": "L", "ı": "i", "ŋ": "ng", "Ŋ": "Ng", "ħ": "h", "Ħ": "H",
        "℃": "°C", "℉": "°F", "º": "°",
        "¹": "", "²": "^2", "³": "^3", "⁰": "", "⁴": "", "⁵": "", "⁶": "", "⁷": "", "⁸": "", "⁹": "",
}  # fmt: skip
_UNFIT = frozenset({"Mn", "Mc", "Me", "Cf", "Cc", "Cs"})


class LazyTable(dict[int, str]):
    """A table for `str.translate` that computes a character's translation at its first occurrence."""

    def __init__(self, translate: Callable[[str], str]) -> None:
        super().__init__()
        self._translate = translate

    def __missing__(self, point: int) -> str:
        self[point] = found = self._translate(chr(point))
        return found


def _shadow_of(char: str) -> str:
    category = unicodedata.category(char)
    if char in _SHADOW_ALIKE:
        return _SHADOW_ALIKE[char]
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if category[0] in "LN":
        return char if char.isalnum() else BREAK
    plain = unicodedata.normalize("NFKC", char)
    return _SHADOW_OF_CATEGORY.get(category) or (plain if plain in _SIGNS else BREAK)


def shadow(text: str) -> str:
    """One character for each of `text`: letters unchanged, digits as 0-9, currencies as $, the rest reduced to signs."""
    return text.translate(LazyTable(_shadow_of))


def fold(text: str) -> str:
    """Plain Latin or Greek spelling of one word, case kept: no accents, ligatures, full-width forms or curly quotes.

    Letters of other scripts become one FOREIGN each, a silent boundary.
    """
    return text.replace("`", "'") if text.isascii() else "".join(map(_fold_char, text)).strip()


@lru_cache(maxsize=4096)
def _fold_char(char: str) -> str:
    if char in _FOLD:
        return _FOLD[char]
    if "Ⅰ" <= char <= "ⅿ":
        return str(int(unicodedata.numeric(char)))  # a Roman numeral that cannot be letters
    plain = unicodedata.normalize("NFKD", char)
    if "⁄" in plain:  # 2½ must not become 21/2: a blank separates the whole number from the fraction
        return " " + plain.replace("⁄", "/")
    kept = [_fold_plain(part) for part in plain]
    # Some code points are whole phrases of another script: one boundary is enough.
    return FOREIGN if FOREIGN in kept else "".join(kept)


def _fold_plain(char: str) -> str:
    category = unicodedata.category(char)
    if category in _UNFIT:
        return ""
    if category == "Nd":
        return str(unicodedata.decimal(char))
    return FOREIGN if category[0] in "LN" and not (char.isascii() or "α" <= char.lower() <= "ω") else char
