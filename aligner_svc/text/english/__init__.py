"""What a speaker says for each word of an English transcript."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from aligner_svc.text.english.abbreviations import ELISIONS, UNDOTTED, expand, owns_dot, with_number
from aligner_svc.text.english.acronyms import capitals
from aligner_svc.text.english.context import ALONE, Context
from aligner_svc.text.english.dates import calendar, day_or_year, decade, half_of_day, time_of_day
from aligner_svc.text.english.numbers import Words, possessive
from aligner_svc.text.english.quantities import dimensions, measure, money, multiplied, scale_of_money, split_sign, unit
from aligner_svc.text.english.roman import numeral
from aligner_svc.text.english.symbols import address, compound, counted, last_of_phone, mixture, phone
from aligner_svc.text.folding import fold
from aligner_svc.text.tokens import Piece

__all__ = ["ELISIONS", "owns_dot", "read"]

_PLAIN = re.compile(r"'?[A-Za-z]+(?:'[A-Za-z]+)*")
_SAID_WITH_APOSTROPHE = frozenset({"'em", "'n", "'cause"})
"""Elisions that sound different from the word without the apostrophe; dictionaries list them with it."""
_PLURAL_IN_BRACKETS = re.compile(r"\((e?s)\)$")
_GROUPED = re.compile(r"\d{1,3}([\s'_.])\d{3}(?:\1\d{3}){0,4}")
# In this order: earlier rules consider more of the word, or more of its context.
_OF_WORDS = (multiplied, expand, scale_of_money, unit, half_of_day, numeral)
_OF_DIGITS = (phone, last_of_phone, day_or_year, counted)
_OF_FIGURES = (expand, dimensions, calendar, phone, time_of_day, money, decade, measure, unit, counted)


def read(pieces: Sequence[Piece], transcript: str) -> list[Words]:
    """The spoken words of each piece; empty if it is silent.

    Letters a-z, with apostrophes between them only ("don't"), except for 'em, 'n and 'cause.
    """
    words = [fold(piece.text) for piece in pieces]
    ends = [0, *(piece.end for piece in pieces)]
    starts = [*(piece.start for piece in pieces), len(transcript)]
    gaps = [transcript[end:start] for end, start in zip(ends, starts, strict=True)]
    shouted = _shouted(words)
    return [
        (word,) if _is_everyday(word, words[index - 1]) else _speak(word, Context(words, gaps, index, shouted))
        for index, word in enumerate(words)
    ]


def _is_everyday(word: str, before: str) -> bool:
    """Whether no rule applies, as to nine words in ten: a shortcut."""
    return word.isalpha() and word.isascii() and word.islower() and word not in UNDOTTED and not before[-1:].isdigit()


def _shouted(words: Sequence[str]) -> bool:
    """Whether most words are in capitals, which then mean nothing. Two words or fewer are too few to know."""
    capital = sum(len(word) > 1 and word.isupper() for word in words)
    return capital > 2 and capital > sum(word != word.upper() for word in words)


def _speak(word: str, context: Context) -> Words:
    if _PLAIN.fullmatch(word):
        return _speak_word(word, context)
    if any(char.isdigit() for char in word):
        return _speak_figure(word, context)
    if (found := multiplied(word, context) or expand(word, context) or unit(word, context)) is not None:
        return found
    word = _PLURAL_IN_BRACKETS.sub(r"\1", word)
    found = address(word, context) or compound(word, _speak_part)
    return found if found is not None else mixture(word, context)


@lru_cache(maxsize=4096)
def _speak_part(word: str) -> Words:
    """A part of a compound, without context; the cache makes 1-2-1-2-... fast."""
    return _speak(word, ALONE)


def _speak_word(word: str, context: Context) -> Words:
    for rule in _OF_WORDS:
        if (found := rule(word, context)) is not None:
            return found
    lower = word.lower()
    if word != lower and (found := capitals(word, context)) is not None:
        return found
    return (lower if lower[0] != "'" or lower in _SAID_WITH_APOSTROPHE else lower[1:],)


def _speak_figure(word: str, context: Context) -> Words:
    word = _ungrouped(word)
    if word.endswith("'s") and not word[-3].isdecimal():
        return possessive(_read_figure(word[:-2], context))
    return _read_figure(word, context)


def _ungrouped(word: str) -> str:
    """1 000 000, 1'000'000, 1_000_000 and 1.000.000 with commas between thousands."""
    match = _GROUPED.fullmatch(word.lstrip("+-"))
    if match is None or (match[1] == "." and word.count(".") < 2):
        return word
    return word.replace(match[1], ",")


def _read_figure(word: str, context: Context) -> Words:
    sign, unsigned = split_sign(word)
    if sign and phone(word, context) is not None:
        sign = ()
    else:
        word = unsigned
    for rule in _OF_DIGITS if word.isdecimal() else _OF_FIGURES:
        if (found := rule(word, context)) is not None:
            return sign + found
    found = with_number(word, _speak_part) or address(word, context) or compound(word, _speak_part)
    return sign + (found if found is not None else mixture(word, context))
