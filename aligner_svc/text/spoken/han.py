"""Mandarin and Cantonese: each character is a word, said as a syllable that is written in pinyin or jyutping with its tone.

Characters with several readings are read in the whole text, as the words around them decide. Figures are read as the characters
that they are said with. Words in other alphabets stay as they are.
"""

# ruff: noqa: RUF001  full-width punctuation
from __future__ import annotations

import os
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, cast

from aligner_svc.domain import Token
from aligner_svc.text.model_words import split_at_spaces
from aligner_svc.text.readings import either

Words = tuple[str, ...]

_DIGITS: Final = "零一二三四五六七八九"
_UNITS: Final = ("", "十", "百", "千")
_GROUPS: Final = ("", "万", "亿", "万亿", "亿亿")
_MONEY: Final = {"¥": "元", "\uffe5": "元", "$": "美元", "€": "欧元", "£": "英镑"}
_PIECE = re.compile(r"\d+(?:[.,:/-]\d+)*|[a-z]+(?:'[a-z]+)*", re.IGNORECASE)
_TIME = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)")
_DATE = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})")
_MAX_DIGITS = 16


def tokenise(text: str, language: str) -> tuple[Token, ...]:
    """See text.spoken.tokenise; `language` is zh or yue."""
    syllables = _read(text, language)
    return tuple(
        Token(token.text, token.char_start, token.char_end, _said(text, token, syllables, language))
        for token in split_at_spaces(text)
    )


def _said(text: str, token: Token, syllables: Sequence[str], language: str) -> Words:
    start, end = token.char_start, token.char_end
    if syllables[start]:
        return (syllables[start],)
    words: list[str] = []
    pieces = _PIECE.findall(text[start:end])
    for place, piece in enumerate(pieces):
        if not piece[0].isdigit():
            words.append(piece.lower())
            continue
        outermost = len(pieces) == 1 or place == len(pieces) - 1
        after = text[end : end + 1] if outermost else ""
        before = text[max(0, start - 1) : start] if place == 0 else ""
        ways = [tuple(_syllables(way, language)) for way in _figures(piece, before, after)]
        words += either(*(way for way in ways if way))
    return tuple(words)


def _figures(figure: str, before: str, after: str) -> list[str]:
    """The characters that a figure is said with, in each way."""
    figure = "".join(str(int(char)) if char.isdecimal() else char for char in figure)
    if date := _DATE.fullmatch(figure):
        year, month, day = date.groups()
        return [f"{_spelled(year)}年{number(int(month))}月{number(int(day))}日"]
    if time := _TIME.fullmatch(figure):
        hour, minute = number(int(time[1])), time[2]
        minutes = "" if minute == "00" else ("零" if minute[0] == "0" else "") + number(int(minute))
        return [f"{hour}点{minutes}分", f"{hour}点{minutes}"] if minutes else [f"{hour}点"]
    plain = figure.replace(",", "")
    if not re.fullmatch(r"\d+(?:\.\d+)?", plain):
        return ["".join(_figures(part, "", "")[0] for part in re.split(r"\D+", figure) if part)]
    whole, _, rest = plain.partition(".")
    if len(whole) > _MAX_DIGITS or (len(whole) > 1 and whole[0] == "0"):
        said = [_spelled(whole)]
    elif len(whole) == 4 and not rest:
        said = [_spelled(whole), number(int(whole))]
        if after != "年":
            said.reverse()
    else:
        said = [number(int(whole))]
    if rest:
        said = [f"{way}点{_spelled(rest)}" for way in said]
    if after in {"%", "％"}:
        return [f"百分之{way}" for way in said]
    sign = before if before in _MONEY else after
    return [f"{way}{_MONEY.get(sign, '')}" for way in said]


def number(value: int | Decimal) -> str:
    """A whole number below 10^20 in characters: 105 is 一百零五."""
    if value < 10:
        return _DIGITS[int(value)]
    said = ""
    groups: list[int] = []
    left = int(value)
    while left:
        left, group = divmod(left, 10_000)
        groups.append(group)
    for place in range(len(groups) - 1, -1, -1):
        group = groups[place]
        if group == 0:
            continue
        if said and (group < 1000 or groups[place + 1] % 10 == 0):
            said += "零"
        said += _below_ten_thousand(group) + _GROUPS[place]
    said = re.sub("零+", "零", said)
    return said[1:] if said.startswith("一十") else said


def _below_ten_thousand(value: int) -> str:
    said = ""
    for place, digit in zip(range(3, -1, -1), f"{value:04d}", strict=True):
        if digit != "0":
            said += _DIGITS[int(digit)] + _UNITS[place]
        elif said and int(f"{value:04d}"[3 - place :]):
            said += "零"
    return re.sub("零+", "零", said)


def _spelled(digits: str) -> str:
    return "".join(_DIGITS[int(digit)] for digit in digits)


def _syllables(characters: str, language: str) -> list[str]:
    return [syllable for syllable in _read(characters, language) if syllable]


def _read(text: str, language: str) -> list[str]:
    """The syllable of each character of `text`; "" for what is none."""
    return _jyutping(text) if language == "yue" else _pinyin(text)


def _pinyin(text: str) -> list[str]:
    os.environ["PYPINYIN_NO_DICT_COPY"] = "true"  # saves 20 MB; it reads this when it is imported
    from pypinyin import Style, lazy_pinyin  # noqa: PLC0415 - takes 0.5 s and 55 MB

    def nothing(other: str) -> list[str]:
        return [""] * len(other)

    read: Any = lazy_pinyin  # its annotations know nothing of a list from `errors`, which its documentation does
    return cast("list[str]", read(text, Style.TONE3, nothing, neutral_tone_with_five=True, v_to_u=True))


def _jyutping(text: str) -> list[str]:
    import ToJyutping  # noqa: PLC0415 - takes 2 s and 70 MB

    return [(syllable or "").split()[0] if syllable else "" for _, syllable in ToJyutping.get_jyutping_list(text)]
