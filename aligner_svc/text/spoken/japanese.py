"""Japanese: words by SudachiPy's short units, said as kana."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any, Final

from num2words import num2words

from aligner_svc.domain import Token

_KANA = re.compile(r"[\u3041-\u3096\u30a1-\u30fa\u30fc]+")
_LATIN = re.compile(r"[a-z']+")
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_PARTICLES: Final = {"ハ": "ワ", "ヘ": "エ", "ヲ": "オ"}
"""Read other than they are written, where they are particles."""
_MAX_DIGITS = 15


def tokenise(text: str) -> tuple[Token, ...]:
    """See text.spoken.tokenise."""
    from sudachipy import SplitMode  # noqa: PLC0415 - as _tokenizer

    tokens: list[Token] = []
    for line in re.finditer(r"[^\n]+", text):
        for word in _tokenizer().tokenize(line[0], SplitMode.A):
            start, end = line.start() + word.begin(), line.start() + word.end()
            surface = text[start:end]
            if any(map(str.isalnum, surface)):
                tokens.append(Token(surface, start, end, _said(surface, word)))
    return tuple(tokens)


def _said(surface: str, word: Any) -> tuple[str, ...]:
    plain = unicodedata.normalize("NFKC", surface).lower()
    if _LATIN.fullmatch(plain):
        return (plain,)
    if _NUMBER.fullmatch(plain):
        return _figures(plain)
    reading = word.reading_form()
    if word.part_of_speech()[0] == "助詞":
        reading = _PARTICLES.get(reading, reading)
    return tuple(_hiragana(kana) for kana in _KANA.findall(reading)) or (
        tuple(_hiragana(kana) for kana in _KANA.findall(plain)) or tuple(_LATIN.findall(plain))
    )


def _figures(figure: str) -> tuple[str, ...]:
    from sudachipy import SplitMode  # noqa: PLC0415 - as _tokenizer

    plain = figure.replace(",", "")
    whole, _, rest = plain.partition(".")
    if len(whole) > _MAX_DIGITS or (len(whole) > 1 and whole[0] == "0"):
        written = "".join(num2words(int(digit), lang="ja") for digit in whole)
    else:
        written = num2words(int(whole), lang="ja")
    if rest:
        written += "点" + "".join(num2words(int(digit), lang="ja") for digit in rest)
    words = _tokenizer().tokenize(written, SplitMode.A)
    return tuple(_hiragana(kana) for word in words for kana in _KANA.findall(word.reading_form()))


def _hiragana(kana: str) -> str:
    return "".join(chr(ord(char) - 0x60) if "\u30a1" <= char <= "\u30f6" else char for char in kana)


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    from sudachipy import Dictionary  # noqa: PLC0415 - maps 110 MB of files

    return Dictionary(dict="small").tokenizer()
