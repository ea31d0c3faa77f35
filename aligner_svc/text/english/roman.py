"""Roman numerals, where they are unambiguous: Henry VIII, World War II, Chapter IV."""

from __future__ import annotations

import re

from aligner_svc.text.english.context import Context
from aligner_svc.text.english.numbers import Words, cardinal, ordinal, possessive
from aligner_svc.text.english.wordlists import COUNTED, REGNAL

_NUMERAL = re.compile(r"(X{0,3})(IX|IV|V?I{0,3})")
_VALUES = {"IX": 9, "IV": 4, "V": 5, "VI": 6, "VII": 7, "VIII": 8, "I": 1, "II": 2, "III": 3, "": 0}


def numeral(word: str, context: Context) -> Words | None:
    """The words of a Roman numeral; None if these are ordinary letters."""
    base = word.removesuffix("'s")
    if base != word and (found := numeral(base, context)):
        return possessive(found)
    match = _NUMERAL.fullmatch(word) if word and len(word) <= 7 else None
    before = context.before
    if match is None or not before[:1].isupper():
        return None
    value = 10 * len(match[1]) + _VALUES[match[2]]
    name = before.lower()
    if word == "I" and (context.shouted or name not in COUNTED or name == "part"):
        return None  # "Elizabeth I know" is as likely as the queen
    if name in COUNTED:
        return cardinal(value)
    if name in REGNAL:
        return ("the", *ordinal(value))
    # no initialism looks like III, VII or XIV; IV, VI and XL are ambiguous
    return cardinal(value) if word == "II" or (len(word) > 2 and "I" in word) else None
