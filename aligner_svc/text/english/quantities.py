"""Money, percentages and measures."""

from __future__ import annotations

import re

from aligner_svc.text.english.context import Context
from aligner_svc.text.english.numbers import FIGURE, Words, cardinal, figure, two_digits
from aligner_svc.text.english.units import UNITS
from aligner_svc.text.folding import MINUS, PLUS_MINUS
from aligner_svc.text.readings import either

SCALES = frozenset({"hundred", "thousand", "million", "billion", "trillion"})

_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "", ""),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", "", ""),
    "₽": ("ruble", "rubles", "", ""),
    "₿": ("bitcoin", "bitcoins", "", ""),
    "¢": ("cent", "cents", "", ""),
}
_SIGNS = "".join(_CURRENCIES)
_PLUS_OR_MINUS = {"+": ("plus",), "-": ("minus",), MINUS: ("minus",), PLUS_MINUS: ("plus", "or", "minus")}
_SUFFIXES = {
    "k": "thousand", "m": "million", "mn": "million", "mm": "million", "b": "billion",
    "bn": "billion", "t": "trillion", "tn": "trillion"
}  # fmt: skip
_MONEY = re.compile(
    rf"(?P<country>[A-Z]{{0,3}})(?P<sign>[{_SIGNS}])(?P<sum>{FIGURE})(?P<size>[A-Za-z]{{0,2}})"
    rf"|(?P<sum_first>{FIGURE})(?P<sign_last>[{_SIGNS}])"
)
_MEASURE = re.compile(rf"(?P<sum>{FIGURE})(?P<unit>[°A-Za-zμ%][A-Za-zμ/^23]{{0,4}})")
_ENDS_IN_FIGURE = re.compile(r"[-+]?(?:\d+ )?[\d,./½-]*\d")
_DIMENSIONS = re.compile(r"\d+(?:\.\d+)?(?:[xX]\d+(?:\.\d+)?)+")
_LENGTHS = frozenset({"foot", "feet", "inch", "inches", "in", "yards", "meters", "metres", "centimeters", "pixels", "square"})
_MAX_CONTEXT = 24  # characters of a word that may be a figure
_HEIGHT = re.compile(r"(\d{1,2})'(\d{1,2})")


def split_sign(word: str) -> tuple[Words, str]:
    """The plus or minus before the figure or after its currency, and the rest: -5, -$5, $-5."""
    if word[0] in _PLUS_OR_MINUS:
        sign, rest = word[0], word[1:]
    elif word[0] in _CURRENCIES and word[1:2] in _PLUS_OR_MINUS:
        sign, rest = word[1], word[0] + word[2:]
    else:
        return (), word
    return _PLUS_OR_MINUS[sign], rest


def money(word: str, context: Context) -> Words | None:
    """$5.20, £1, 5€, US$3bn; None if it is no amount of money."""
    match = _MONEY.fullmatch(word)
    if match is None:
        return None
    if match["sum_first"]:
        return _sum_of_money(match["sum_first"], match["sign_last"])
    size = _SUFFIXES.get(match["size"].lower())
    if match["size"] and size is None:
        return None
    one, many, *_ = _CURRENCIES[match["sign"]]
    country = tuple(match["country"].lower())
    if not size and context.after.lower() in (*SCALES, one, many):
        return figure(match["sum"])  # "$5 million": the dollars come after it
    if size or country:
        tail = (*((size,) if size else ()), *country, one if match["sum"] == "1" and not size else many)
        return (*(figure(match["sum"]) or ()), *tail)
    return _sum_of_money(match["sum"], match["sign"])


def _sum_of_money(text: str, sign: str) -> Words | None:
    one, many, small_one, small_many = _CURRENCIES[sign]
    whole, point, rest = text.replace(",", "").partition(".")
    if not point or len(rest) != 2 or not small_one:
        words = figure(text)
        return (*words, one if text == "1" else many) if words else None
    cents = int(rest)
    small = (*cardinal(cents), small_one if cents == 1 else small_many) if cents else ()
    if not int(whole or "0") and small:
        return small
    sums = figure(whole or "0") or ()
    said = (*sums, one if whole == "1" else many, *small)
    return either(said, (*sums, *two_digits(cents))) if cents else said


def multiplied(word: str, context: Context) -> Words | None:
    """The x of "5 x 3" and "5 x 3 m", or a multiplication sign; None if it is not between two figures."""
    before, after = context.before, context.after
    if word not in {"x", "X", "*"} or not (_is_figure(before) and _is_figure(after)):
        return None
    measured = context.at(2).lower()
    return either(("by",), ("times",)) if measured in _LENGTHS or measured in UNITS else either(("times",), ("by",))


def _is_figure(word: str) -> bool:
    return word != "" and len(word) <= _MAX_CONTEXT and _ENDS_IN_FIGURE.fullmatch(word) is not None


def dimensions(word: str, context: Context) -> Words | None:
    """5x3, 4x4x2: "five by three"."""
    match = _DIMENSIONS.fullmatch(word) if len(word) <= _MAX_CONTEXT else None
    if match is None:
        return None
    sizes = [figure(size) or () for size in re.split("[xX]", word)]
    return tuple(said for place, size in enumerate(sizes) for said in (either(("by",), ("times",)) if place else ()) + size)


def scale_of_money(word: str, context: Context) -> Words | None:
    """The million of "$5 million", with which the dollars are said."""
    lower = word.lower()
    if lower not in SCALES or not (before := context.before) or len(before) > _MAX_CONTEXT:
        return None
    match = _MONEY.fullmatch(split_sign(before)[1])
    if match is None or not match["sign"] or match["size"] or context.after.lower() in (*SCALES, *_CURRENCIES[match["sign"]][:2]):
        return None
    return (lower, *match["country"].lower(), _CURRENCIES[match["sign"]][1])


def measure(word: str, context: Context) -> Words | None:
    """50%, 20°C, 5km; None if it is no figure with a known unit."""
    if height := _HEIGHT.fullmatch(word):
        return (*cardinal(int(height[1])), "foot", *cardinal(int(height[2])))
    match = _MEASURE.fullmatch(word)
    forms = UNITS.get(match["unit"]) if match else None
    number = figure(match["sum"]) if match else None
    if match is None or forms is None or number is None or (match["unit"] == "s" and len(match["sum"]) > 2):
        return None  # "747s" are aeroplanes, "15s" are seconds
    return (*number, *forms[match["sum"] != "1"])


def unit(word: str, context: Context) -> Words | None:
    """The km of "5 km", the % of "50 %", the € of "5 €"; None if it is no unit, or not after a figure."""
    before = context.before
    if not before or len(before) > _MAX_CONTEXT or not _ENDS_IN_FIGURE.fullmatch(before):
        return None
    if word in _CURRENCIES:
        return (_CURRENCIES[word][before != "1"],)
    forms = UNITS.get(word)
    return forms[before != "1"] if forms else None
