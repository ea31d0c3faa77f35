"""Figures as they are said: numbers, ordinals, percentages, sums of money, times of day; by num2words where it has the language.

What may be said in several ways (1984, 3.) is one spoken word with them all (text/readings.py): the aligner takes the one that is
in the audio.
"""

# ruff: noqa: RUF001  letters of other alphabets
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Final

from num2words import CONVERTER_CLASSES, num2words

from aligner_svc.text.readings import either

Words = tuple[str, ...]

_PIECE = re.compile(r"\d+(?:[.,'\u00a0\u202f]\d+)*|[^\W\d_]+(?:['\u2019\u02bc]?[^\W\d_]+)*")
_GROUPED = {mark: re.compile(rf"\d{{1,3}}(?:{re.escape(mark)}\d{{3}})+") for mark in ".,'\u00a0\u202f"}
_TIME = re.compile(r"([01]?\d|2[0-4])[:h]([0-5]\d)")
_DATE = re.compile(r"(\d{1,4})([./-])(\d{1,2})\2(\d{1,4})")
_ORDINAL_MARK = re.compile(r"(\d+)[-.\u2010\u2011]?(?:º|ª|°|er|re|[eè]me|nde?|[eèoaªº]|[йяеи]|го|му|ого|ой|ая|ое|ые|th|st|nd|rd)")
_MAX_DIGITS = 15
"""Of a number that is read as one; a longer one is read digit by digit."""

_DOT_DECIMALS: Final = frozenset({"ja", "ko", "zh", "yue", "th", "he", "am", "bn", "kn", "te", "cy"})
"""Languages that write 3.14; the others write 3,14 and 1.000 for a thousand."""
_DOTTED_ORDINALS: Final = frozenset({"de", "cs", "da", "fi", "hu", "is", "no", "pl", "sk", "sl", "sr", "tr", "lv"})
"""Languages that write "3." for the third."""

_MONTHS: Final = {
    language: tuple(names.split())
    for language, names in {
        "de": "januar februar märz april mai juni juli august september oktober november dezember",
        "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
        "pt": "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    }.items()
}
_BEFORE_MONTH: Final = {
    language: re.compile(rf"[ \u00a0]+(?:de[ \u00a0]+)?(?:{'|'.join(names)})\b", re.IGNORECASE)
    for language, names in _MONTHS.items()
}
_OF: Final = {"es": ("de",), "pt": ("de",)}
"""What is said on both sides of a month."""

_PERCENT: Final = {
    "de": "prozent", "es": "por ciento", "fr": "pour cent", "it": "per cento", "pt": "por cento", "ru": "процентов",
    "el": "τοις εκατό", "ko": "퍼센트", "ja": "パーセント", "nl": "procent", "pl": "procent", "sv": "procent", "da": "procent",
    "no": "prosent", "cs": "procent", "uk": "відсотків", "tr": "yüzde", "ro": "la sută", "hu": "százalék", "fi": "prosenttia",
}  # fmt: skip
_MONEY: Final = {
    "€": {"de": "euro", "es": "euros", "fr": "euros", "it": "euro", "pt": "euros", "ru": "евро", "el": "ευρώ", "ko": "유로",
          "ja": "ユーロ", "nl": "euro", "pl": "euro", "tr": "euro"},
    "$": {"de": "dollar", "es": "dólares", "fr": "dollars", "it": "dollari", "pt": "dólares", "ru": "долларов", "el": "δολάρια",
          "ko": "달러", "ja": "ドル", "nl": "dollar", "pl": "dolarów", "tr": "dolar"},
    "£": {"de": "pfund", "es": "libras", "fr": "livres", "it": "sterline", "pt": "libras", "ru": "фунтов", "el": "λίρες",
          "ko": "파운드", "ja": "ポンド", "nl": "pond"},
    "¥": {"de": "yen", "es": "yenes", "fr": "yens", "it": "yen", "pt": "ienes", "ru": "иен", "ko": "엔", "ja": "エン"},
    "₽": {"ru": "рублей", "de": "rubel"},
    "₩": {"ko": "원"},
}  # fmt: skip
_O_CLOCK: Final = {"de": "uhr", "fr": "heures", "it": "e", "pt": "e", "es": "y", "ru": "", "nl": "uur", "ja": "時", "ko": "시"}
_MINUS: Final = {"de": "minus", "es": "menos", "fr": "moins", "it": "meno", "pt": "menos", "ru": "минус", "el": "μείον"}


def say(text: str, start: int, end: int, language: str) -> Words:
    """The spoken words of `text[start:end]`, a word: lower-case, without blanks; empty if it cannot be read in `language`.

    A sign of a currency or of per cent beside it is read with it, and so is a minus.
    """
    word = text[start:end]
    if not any(map(str.isdecimal, word)):
        return tuple(match[0].lower() for match in _PIECE.finditer(word))
    number = _NUMBERS.get(language) or _library(language)
    if number is None:
        return ()
    words = _figures(word, number, language, dotted=_ends_in_dot(text, end))
    if word == "1" and language in _MONTHS and _BEFORE_MONTH[language].match(text, end):
        words = _day(1, number, language)
    after = text[end : end + 2].lstrip(" \u00a0\u202f")[:1]
    before = text[max(0, start - 1) : start]
    if words and after == "%":
        words += tuple(_PERCENT.get(language, "").split())
    sign = before if before in _MONEY else after
    if words and sign in _MONEY:
        words += tuple(_MONEY[sign].get(language, "").split())
    if words and before in {"-", "\u2212"} and not text[max(0, start - 2) : start - 1].strip() and language in _MINUS:
        words = (_MINUS[language], *words)
    return words


def _ends_in_dot(text: str, end: int) -> bool:
    """Whether a dot follows that may belong to the figure: the sentence goes on."""
    return text[end : end + 1] == "." and text[end + 1 : end + 2].isspace() and text[end + 2 : end + 3].isalpha()


def _figures(word: str, number: Number, language: str, *, dotted: bool) -> Words:
    plain = "".join(str(int(char)) if char.isdecimal() else char for char in word)
    if time := _TIME.fullmatch(plain):
        hours, minutes = number(int(time[1]), "cardinal"), number(int(time[2]), "cardinal")
        link = tuple(_O_CLOCK.get(language, "").split())
        if time[2] == "00":
            return (*hours, *link) if language not in {"it", "pt", "es"} else hours
        return either((*hours, *link, *minutes), (*hours, *minutes))
    if date := _DATE.fullmatch(plain):
        return _date(date.group(1, 3, 4), number, language)
    if ordinal := _ORDINAL_MARK.fullmatch(plain.lower()):
        return number(int(ordinal[1]), "ordinal") if len(ordinal[1]) <= _MAX_DIGITS else ()
    words: list[str] = []
    for found in _PIECE.finditer(plain):
        piece, after = found[0], plain[found.end() : found.end() + 2]
        inside = after[:1] == "." and after[1:].isalpha()  # 3.Mai
        words += _one(piece, number, language, dotted=dotted or inside) if piece[0].isdecimal() else (piece.lower(),)
    return tuple(words)


def _date(parts: Sequence[str], number: Number, language: str) -> Words:
    """03.05.2024 or 2024-05-03: its month as a number or by its name."""
    words: list[str] = []
    for place, part in enumerate(parts):
        value = int(part)
        names, of = _MONTHS.get(language, ()), _OF.get(language, ())
        if len(part) > 2 or (place == 2 and len(parts[0]) < 3):
            words += _one(part, number, language, dotted=False)
        elif place == 1 and 0 < value <= len(names):
            words += either((*of, names[value - 1], *of), *_ways(value, number, language))
        else:
            words += _day(value, number, language)
    return tuple(words)


def _day(value: int, number: Number, language: str) -> Words:
    return either(*_ways(value, number, language)) if number(value, "cardinal") else ()


def _ways(value: int, number: Number, language: str) -> list[Words]:
    """A day of the month, or a month."""
    said = [number(value, "cardinal")]
    if language in _DOTTED_ORDINALS or (value == 1 and language in _MONTHS):
        said += _ordinals(value, number, language)
    return [words for words in said if words]


def _ordinals(value: int, number: Number, language: str) -> list[Words]:
    """With the ending of "am dritten Mai" in German."""
    said = number(value, "ordinal")
    return [said, (*said[:-1], said[-1] + "n")] if said and language == "de" else [said]


def _one(figure: str, number: Number, language: str, *, dotted: bool) -> Words:
    """A number with its marks: thousands, decimals."""
    point, comma = (".", ",") if language in _DOT_DECIMALS else (",", ".")
    for mark in (comma, "'", "\u00a0", "\u202f"):
        whole, _, rest = figure.partition(point)
        if _GROUPED[mark].fullmatch(whole):
            figure = whole.replace(mark, "") + (point + rest if rest else "")
    if figure.isdecimal():
        if len(figure) > _MAX_DIGITS or (figure[0] == "0" and len(figure) > 1):
            return tuple(spoken for digit in figure for spoken in number(int(digit), "cardinal"))
        value = int(figure)
        said = [number(value, "cardinal")]
        if dotted and language in _DOTTED_ORDINALS:
            said += _ordinals(value, number, language)
        if 1100 <= value <= 1999 and language == "de":
            said.append(number(value, "year"))
        return either(*filter(None, said)) if any(said) else ()
    if figure.count(point) == 1:
        try:
            return number(Decimal(figure.replace(point, ".")), "cardinal")
        except InvalidOperation:
            return ()
    parts = re.split(r"\D+", figure)
    return tuple(spoken for part in parts for spoken in _one(part, number, language, dotted=False))


Number = Callable[["int | Decimal", str], Words]
"""(a number, "cardinal" or "ordinal" or "year") -> its words; empty if they are not known."""


def _library(language: str) -> Number | None:
    code = "kz" if language == "kk" else "no" if language in {"nb", "nn"} else language
    if code not in CONVERTER_CLASSES:
        return None

    def number(value: int | Decimal, how: str) -> Words:
        try:
            said: str = num2words(value, lang=code, to=how)
        except (NotImplementedError, TypeError, ValueError, OverflowError, KeyError, IndexError, AttributeError):
            return number(value, "cardinal") if how != "cardinal" else ()
        return _words_of(said)

    return number


def _words_of(said: str) -> Words:
    return tuple(match[0].lower() for match in _PIECE.finditer(said))


_GREEK_ONES: Final = ("", "ένα", "δύο", "τρία", "τέσσερα", "πέντε", "έξι", "επτά", "οκτώ", "εννέα", "δέκα", "έντεκα", "δώδεκα")
_GREEK_TENS: Final = ("", "δέκα", "είκοσι", "τριάντα", "σαράντα", "πενήντα", "εξήντα", "εβδομήντα", "ογδόντα", "ενενήντα")
_GREEK_HUNDREDS: Final = (
    "", "εκατό", "διακόσια", "τριακόσια", "τετρακόσια", "πεντακόσια", "εξακόσια", "επτακόσια", "οκτακόσια", "εννιακόσια",
)  # fmt: skip


def _greek(value: int | Decimal, how: str) -> Words:
    """Below a thousand million, in the neuter; num2words lacks the language."""
    if isinstance(value, Decimal):
        whole, _, decimals = str(value).partition(".")
        return (*_greek(int(whole), how), "κόμμα", *(word for digit in decimals for word in _greek(int(digit), how)))
    if value == 0:
        return ("μηδέν",)
    if value >= 10**9:
        return tuple(word for digit in str(value) for word in _greek(int(digit), how))
    words: list[str] = []
    left = value
    for unit, single, many in ((10**6, "ένα εκατομμύριο", "εκατομμύρια"), (1000, "χίλια", "χιλιάδες")):
        count, left = divmod(left, unit)
        if count:
            words += single.split() if count == 1 else [*_greek(count, how), many]
    hundreds, rest = divmod(left, 100)
    words += [_GREEK_HUNDREDS[hundreds]] if hundreds else []
    tens, ones = divmod(rest, 10)
    if rest < len(_GREEK_ONES):
        words += [_GREEK_ONES[rest]] if rest else []
    elif tens == 1:
        words.append("δεκα" + _GREEK_ONES[ones])
    else:
        words += [_GREEK_TENS[tens], *([_GREEK_ONES[ones]] if ones else [])]
    return tuple(words)


_NUMBERS: Final[dict[str, Number]] = {"el": _greek}
"""Readers for languages that num2words lacks."""
