"""Figures as spoken in American English: "one hundred five", not "one hundred and five".

num2words reads numbers below a thousand; the rest is put together here, because it takes
150 us for one long number and a transcript may have tens of thousands of them.
"""

from __future__ import annotations

import re
from functools import lru_cache

from num2words import num2words

Words = tuple[str, ...]

MAX_DIGITS = 15
"""Longer integers are read digit by digit: hardly any speaker says "quadrillion"."""

FIGURE = r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}|\d+)(?:\.\d+)?|\.\d+"
"""An unsigned number as people write it: 5, 1,234.50, .5, 1,00,000."""

_FIGURE = re.compile(FIGURE)
_SCALES = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (10**3, "thousand"))
_HALVES_AND_QUARTERS = {2: ("half", "halves"), 4: ("quarter", "quarters")}


@lru_cache(maxsize=2048)
def _below_thousand(n: int, kind: str) -> Words:
    return tuple(num2words(n, to=kind).replace("-", " ").replace(" and ", " ").split())


def cardinal(n: int) -> Words:
    """0 <= n < 10**15."""
    words: Words = ()
    for size, name in _SCALES:
        count, n = divmod(n, size)
        if count:
            words += (*_below_thousand(count, "cardinal"), name)
    if n or not words:
        words += _below_thousand(n, "cardinal")
    return words


def ordinal(n: int) -> Words:
    """0 <= n < 10**15."""
    high, low = n - n % 1000, n % 1000
    if not high:
        return _below_thousand(low, "ordinal")
    if low:
        return cardinal(high) + _below_thousand(low, "ordinal")
    *head, last = cardinal(high)
    return (*head, last + "th")


def year(n: int) -> Words:
    """A year from 1000 to 9999: nineteen eighty four, nineteen oh five, two thousand nine."""
    if n % 1000 < 10:
        return cardinal(n)
    century, rest = divmod(n, 100)
    if not rest:
        return (*cardinal(century), "hundred")
    return (*cardinal(century), *two_digits(rest))


def two_digits(n: int) -> Words:
    """The digits after a century or an hour: "oh five", "thirty"."""
    return ("oh", *cardinal(n)) if n < 10 else cardinal(n)


def digits(text: str) -> Words:
    """Every digit on its own; anything between them is silent."""
    return tuple(word for char in text if char.isdecimal() for word in _below_thousand(int(char), "cardinal"))


def integer(text: str) -> Words:
    """Decimal digits only; a leading zero or more than MAX_DIGITS make it a string of digits."""
    if len(text) > MAX_DIGITS or (len(text) > 1 and text[0] == "0"):
        return digits(text)
    return cardinal(int(text))


def figure(text: str) -> Words | None:
    """1,234.5 -> "one thousand two hundred thirty four point five"; None: not a FIGURE."""
    if not _FIGURE.fullmatch(text):
        return None
    whole, point, rest = text.replace(",", "").partition(".")
    return (integer(whole) if whole else ()) + (("point", *digits(rest)) if point else ())


def fraction(over: int, under: int) -> Words:
    """3/4 -> "three quarters". 0 < under < 10**15."""
    one, many = _HALVES_AND_QUARTERS.get(under) or (None, None)
    if one and many:
        return (*cardinal(over), one if over == 1 else many)
    parts = ordinal(under)
    return cardinal(over) + (parts if over == 1 else plural(parts))


def plural(words: Words) -> Words:
    """Twenty -> twenties, six -> sixes, third -> thirds."""
    *head, last = words
    if last.endswith("y"):
        return (*head, last[:-1] + "ies")
    return (*head, last + ("es" if last.endswith("x") else "s"))


def possessive(words: Words) -> Words:
    """With 's at the last word; empty for no words."""
    return (*words[:-1], words[-1] + "'s") if words else ()
