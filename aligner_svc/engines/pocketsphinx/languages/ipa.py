"""IPA in the phones of the English acoustic model (ARPABET without stress).

A sound that English lacks becomes the one or the two that are closest in place and manner. Where two are equally close, a word
gets a pronunciation with each, and PocketSphinx takes the one that is in the audio.
"""

# ruff: noqa: RUF001  letters of IPA look like Latin ones
from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

MAX_VARIANTS = 6
"""Pronunciations of a word."""

_NASAL = "\u0303"
_SYLLABIC = "\u0329"
_LONG = "ː"
_MARKS = frozenset({"Mn", "Lm"})
_NOT_KEPT = frozenset("ˈˌ\u0300\u0301\u0302\u0304\u030b\u030c\u030f")
"""Marks of stress and tone."""

_TABLE = {
    # stops
    "p": "P", "b": "B", "t": "T", "d": "D", "k": "K", "ɡ": "G", "g": "G", "q": "K", "ɢ": "G", "c": "K Y", "ɟ": "G Y",
    "ʈ": "T", "ɖ": "D", "ɓ": "B", "ɗ": "D", "ɠ": "G", "ʔ": "", "ʡ": "",
    # affricates
    "ts": "T S", "dz": "D Z", "tʃ": "CH", "tɕ": "CH", "tʂ": "CH", "dʒ": "JH", "dʑ": "JH", "dʐ": "JH", "ʧ": "CH", "ʤ": "JH",
    "ʦ": "T S", "ʣ": "D Z", "ʨ": "CH", "ʥ": "JH", "pf": "P F", "ʈʂ": "CH", "ɖʐ": "JH", "cç": "CH", "ɟʝ": "JH",
    # fricatives
    "f": "F", "v": "V", "ɸ": "F", "β": "V", "ʋ": "V", "θ": "TH", "ð": "DH", "s": "S", "z": "Z", "ʃ": "SH", "ʒ": "ZH", "ɕ": "SH",
    "ʑ": "ZH", "ʂ": "SH", "ʐ": "ZH", "ç": "SH", "ʝ": "Y", "x": "HH", "χ": "HH", "h": "HH", "ɦ": "HH", "ħ": "HH", "ɧ": "SH",
    "ɣ": "HH|R", "ʁ": "HH|R", "ʕ": "", "ɬ": "SH", "ɮ": "L",
    # nasals, liquids, glides
    "m": "M", "ɱ": "M", "n": "N", "ɳ": "N", "ɲ": "N Y", "ŋ": "NG", "ɴ": "NG", "l": "L", "ɭ": "L", "ɫ": "L", "ɻ": "R", "ʎ": "L Y",
    "ʟ": "L", "ɹ": "R", "ʀ": "R", "r": "R|D", "ɾ": "D|R", "ɽ": "D|R", "ɺ": "L|D", "j": "Y", "ɥ": "Y", "w": "W", "ɰ": "W",
    "ʍ": "W",
    # vowels
    "i": "IY", "y": "UW|IY", "ɨ": "IH|UW", "ʉ": "UW", "ɯ": "IH|UW", "u": "UW", "ɪ": "IH", "ʏ": "IH|UH", "ʊ": "UH", "e": "EY|EH",
    "ø": "ER|UH", "ɘ": "AH", "ɵ": "UH", "ɤ": "AH", "o": "OW|AO", "ə": "AH", "ɛ": "EH", "œ": "AH|ER", "ɜ": "ER", "ɞ": "ER",
    "ɚ": "ER", "ɝ": "ER", "ʌ": "AH", "ɔ": "AO", "æ": "AE", "ɐ": "AH", "a": "AA|AE", "ɶ": "AE", "ɑ": "AA", "ɒ": "AA",
    # diphthongs
    "aɪ": "AY", "ai": "AY", "aj": "AY", "aʊ": "AW", "au": "AW", "aw": "AW", "ɔɪ": "OY", "ɔʏ": "OY", "ɔi": "OY", "ɔj": "OY",
    "oi": "OY", "oj": "OY", "oɪ": "OY", "eɪ": "EY", "ei": "EY", "ej": "EY", "ɛɪ": "EY", "ɛi": "EY", "oʊ": "OW", "ou": "OW",
    "ow": "OW", "əʊ": "OW", "ɑɪ": "AY", "ɑi": "AY", "ɑu": "AW", "ɑʊ": "AW",
}  # fmt: skip
_LONGEST = max(map(len, _TABLE))
_VOWELS = frozenset("iyɨʉɯuɪʏʊeøɘɵɤoəɛœɜɞɚɝʌɔæɐaɶɑɒ")
_DIPHTHONGS = {
    ("AA", "IY"): "AY",
    ("AA", "IH"): "AY",
    ("AA", "UW"): "AW",
    ("AA", "UH"): "AW",
    ("AO", "IY"): "OY",
    ("AO", "IH"): "OY",
}

_Choices = tuple[str, ...]
"""What may be said at one place, each phones with blanks between."""


class Sound(NamedTuple):
    """A sound as IPA writes it, without stress and tone, and the phones of the model that are taken for it."""

    symbol: str
    phones: tuple[str, ...]


Way = tuple[Sound, ...]
"""A pronunciation of a word: sounds, each with a phone at least."""
Ways = tuple[Way, ...]


def phones_of(way: Way) -> tuple[str, ...]:
    return tuple(phone for sound in way for phone in sound.phones)


def symbol(written: str) -> str | None:
    """A letter of IPA or several, with marks or without; None: one of them is not known, or is none."""
    letters = [char for char in _normal(written) if unicodedata.category(char) not in _MARKS]
    return written if letters and all(letter in _TABLE for letter in letters) else None


def variants(ipa: str | Sequence[str]) -> list[Way]:
    """The ways to say one word, the likeliest first, at most MAX_VARIANTS; empty if nothing in `ipa` is a sound.

    `ipa`: all of the word, or its symbols, no two of which make one sound.

    All occurrences of a sound are said alike. Doubled phones are merged, and sounds that share a phone are one.
    """
    sounds = [sound for part in ([ipa] if isinstance(ipa, str) else ipa) for sound in _sounds(part)]
    open_choices = list(dict.fromkeys(choices for _, parts in sounds for choices in parts if len(choices) > 1))
    # The fewest sounds away from the likeliest first.
    picks = sorted(product((0, 1), repeat=min(len(open_choices), 4)), key=sum)
    found: dict[tuple[str, ...], Way] = {}
    for pick in picks:
        taken = dict(zip(open_choices, pick, strict=False))
        way = _merged(
            Sound(symbol, tuple(" ".join(choices[taken.get(choices, 0)] for choices in parts).split()))
            for symbol, parts in sounds
        )
        if way:
            found.setdefault(phones_of(way), way)
        if len(found) == MAX_VARIANTS:
            break
    return list(found.values())


def _sounds(ipa: str) -> Iterator[tuple[str, Sequence[_Choices]]]:
    """Each sound as it is written, and what may be said for it, one after another."""
    plain: list[str] = []
    marks: list[str] = []
    for char in _normal(ipa):
        if char in _TABLE:
            plain.append(char)
            marks.append("")
        elif plain and unicodedata.category(char) in _MARKS and char not in _NOT_KEPT:
            marks[-1] += char
    at = 0
    while at < len(plain):
        for length in range(min(_LONGEST, len(plain) - at), 0, -1):
            spelled = "".join(plain[at : at + length])
            if spelled in _TABLE:
                break
        held = "".join(marks[at : at + length])
        parts: list[_Choices] = [tuple(_TABLE[spelled].split("|"))]
        if _SYLLABIC in held and plain[at] not in _VOWELS:
            parts.insert(0, ("AH",))
        if _NASAL in held and plain[at] in _VOWELS:
            parts.append(("", "N"))
        symbol = "".join(letter + mark for letter, mark in zip(plain[at : at + length], marks[at : at + length], strict=True))
        yield unicodedata.normalize("NFC", symbol), parts
        at += length


def _normal(ipa: str) -> str:
    """Letters and their marks apart. ç is one letter of IPA; a cedilla means nothing else there."""
    return unicodedata.normalize("NFD", ipa).replace("c\u0327", "ç")


def _merged(sounds: Iterable[Sound]) -> Way:
    merged: list[Sound] = []
    for sound in sounds:
        if not sound.phones:
            continue
        before = merged[-1] if merged else Sound("", ("",))
        left, (first, *rest) = before.phones[-1], sound.phones
        joined = left if left == first else _DIPHTHONGS.get((left, first))
        if joined:
            merged[-1] = Sound(_both(before.symbol, sound.symbol), (*before.phones[:-1], joined, *rest))
        elif before.symbol == sound.symbol:
            merged[-1] = Sound(_both(before.symbol, sound.symbol), (*before.phones, *sound.phones))
        else:
            merged.append(sound)
    return tuple(merged)


def _both(symbol: str, other: str) -> str:
    """Two sounds that are taken for one: a doubled one is long."""
    if symbol.rstrip(_LONG) != other.rstrip(_LONG):
        return symbol + other
    return symbol.rstrip(_LONG) + _LONG
