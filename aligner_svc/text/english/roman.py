"""Roman numerals, where they are unambiguous: Henry VIII, World War II, Chapter IV."""

from __future__ import annotations

import re

from aligner_svc.text.english.context import Context
from aligner_svc.text.english.numbers import Words, cardinal, ordinal, possessive, year
from aligner_svc.text.english.wordlists import COUNTED, REGNAL

_NUMERAL = re.compile(r"M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})")
_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_FIRST_YEAR = 1100
"""From here on a numeral that stands alone is a year: MMXXIV."""
_LONGEST = 15
"""Letters of the longest numeral, MMMDCCCLXXXVIII."""


def numeral(word: str, context: Context) -> Words | None:
    """The words of a Roman numeral; None if these are ordinary letters."""
    base = word.removesuffix("'s")
    if base != word and (found := numeral(base, context)):
        return possessive(found)
    if not word or len(word) > _LONGEST or not _NUMERAL.fullmatch(word):
        return None
    value = _value(word)
    before = context.before
    name = before.lower() if before[:1].isupper() else ""
    if word == "I" and (context.shouted or name not in COUNTED or name == "part"):
        return None  # "Elizabeth I know" is as likely as the queen
    if name in REGNAL and name not in COUNTED:
        return ("the", *ordinal(value))
    if name in COUNTED or (word == "II" and name) or _unlike_words(word):
        return year(value) if value >= _FIRST_YEAR and name not in COUNTED else cardinal(value)
    return None


def _value(word: str) -> int:
    values = [_VALUES[letter] for letter in word]
    following = [*values[1:], 0]
    return sum(-value if value < after else value for value, after in zip(values, following, strict=True))


def _unlike_words(word: str) -> bool:
    """III, VII, XIV and LVIII are no words and no initialisms; IV, VI, XL, CD and MIX might be."""
    if len(word) > 3:
        return len(set(word)) > 1
    return len(word) == 3 and "I" in word and set(word) <= {"I", "V", "X"}
