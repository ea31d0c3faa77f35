"""Unicode brought down to the few characters the rules are written in.

Two views of the same text. `shadow` keeps every position, so that a match in it is a
range of the transcript; `fold` may grow or shrink, so that a ligature becomes its letters.
"""

# ruff: noqa: RUF001  characters that look alike are the subject here
from __future__ import annotations

import unicodedata
from functools import lru_cache

MARK = "\u0300"
"""Stands in a shadow for every combining mark: part of the word before it."""
INVISIBLE = "\u00ad"
"""Stands in a shadow for format characters (soft hyphen, joiner, BOM): inside a word they do not cut it."""
BREAK = "|"
"""Stands in a shadow for whatever ends a word without being a space: brackets, emoji."""
EDGE = "<"
"""Stands in a shadow for what ends even a URL: straight or curly double quotes, angle brackets, guillemets."""

FOREIGN = "\ufffd"
"""Stands in a folded word for a letter outside the Latin and Greek alphabets."""

EN_DASH = "–"
MINUS = "−"
"""U+2212, which a shadow shows as a hyphen and a folded word keeps."""

_SIGNS = frozenset("'-.,:/%&@#+=*_°()")
_ALIKE = {
    **dict.fromkeys("’‘ʼʹ′＇´ˈ‛", "'"),
    **dict.fromkeys("‐‑﹣－⁃", "-"),
    **dict.fromkeys("–‒", EN_DASH),
    "×": "*",
    "℃": "°",
    "℉": "°",
    "\u200b": " ",  # the zero-width space is there to separate words
}
_SHADOW_ALIKE = {**_ALIKE, MINUS: "-", **dict.fromkeys('<>"“”«»', EDGE)}
_SHADOW_OF_CATEGORY = {
    **dict.fromkeys(("Mn", "Mc", "Me"), MARK),
    **dict.fromkeys(("Zs", "Zl", "Zp", "Cc", "Cs", "Co", "Cn"), " "),
    "Cf": INVISIBLE,
    "Sc": "$",
}
# What compatibility decomposition leaves alone or makes ambiguous.
_FOLD: dict[str, str] = {
        **_ALIKE,
        "ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D",
        "ð": "th", "Ð": "Th", "þ": "th", "Þ": "Th", "ł": "l", "Ł": "L", "ı": "i", "ŋ": "ng", "Ŋ": "Ng", "ħ": "h", "Ħ": "H",
        "℃": "°C", "℉": "°F", "º": "°",
        "¹": "", "²": "^2", "³": "^3", "⁰": "", "⁴": "", "⁵": "", "⁶": "", "⁷": "", "⁸": "", "⁹": "",
}  # fmt: skip
_UNFIT = frozenset({"Mn", "Mc", "Me", "Cf", "Cc", "Cs"})


class _ShadowTable(dict[int, str]):
    """A translation table that works each character out when it is first met."""

    def __missing__(self, point: int) -> str:
        self[point] = found = _shadow_of(chr(point))
        return found


def _shadow_of(char: str) -> str:
    category = unicodedata.category(char)
    if char in _SHADOW_ALIKE:
        found = _SHADOW_ALIKE[char]
    elif category == "Nd":
        found = str(unicodedata.decimal(char))
    elif category[0] in "LN":
        found = char if char.isalnum() else BREAK
    elif category in _SHADOW_OF_CATEGORY:
        found = _SHADOW_OF_CATEGORY[category]
    else:
        plain = unicodedata.normalize("NFKC", char)
        found = plain if plain in _SIGNS else BREAK
    return found


def shadow(text: str) -> str:
    """One character for each of `text`: letters as they are, digits as 0-9, currencies as $, the rest reduced to signs."""
    return text.translate(_ShadowTable())


def fold(text: str) -> str:
    """Plain Latin or Greek spelling of one word, case kept: no accents, ligatures, full-width forms or curly quotes.

    Letters of other scripts become one FOREIGN each: a boundary that nobody says.
    """
    return text if text.isascii() else "".join(map(_fold_char, text)).strip()


@lru_cache(maxsize=4096)
def _fold_char(char: str) -> str:
    if char in _FOLD:
        return _FOLD[char]
    if "Ⅰ" <= char <= "ⅿ":
        return str(int(unicodedata.numeric(char)))  # a Roman numeral that cannot be letters
    plain = unicodedata.normalize("NFKD", char)
    if "⁄" in plain:  # 2½ must not become 21/2: a blank keeps the whole number off the fraction
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
