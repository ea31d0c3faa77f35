"""IPA in the phones of the English acoustic model (ARPABET without stress).

A sound that English lacks becomes the one or the two that are closest in place and manner. Where two are equally close, a word
gets a pronunciation with each, and PocketSphinx takes the one that is in the audio.
"""

# ruff: noqa: RUF001  letters of IPA look like Latin ones
from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import product

MAX_VARIANTS = 6
"""Pronunciations of a word."""

_NASAL = "\u0303"
_SYLLABIC = "\u0329"

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

_Sound = tuple[str, ...]
"""The choices for a sound, each phones with blanks between."""


def variants(ipa: str) -> list[tuple[str, ...]]:
    """The ways to say one word, the likeliest first, at most MAX_VARIANTS; empty if nothing in `ipa` is a sound.

    All occurrences of a sound are said alike. Length, stress, tone and syllable marks are left out, doubled phones merged.
    """
    sounds = list(_sounds(ipa))
    open_choices = list(dict.fromkeys(sound for sound in sounds if len(sound) > 1))
    # The fewest sounds away from the likeliest first.
    picks = sorted(product((0, 1), repeat=min(len(open_choices), 4)), key=sum)
    found: dict[tuple[str, ...], None] = {}
    for pick in picks:
        taken = dict(zip(open_choices, pick, strict=False))
        phones = _merged(" ".join(sound[taken.get(sound, 0)] for sound in sounds).split())
        if phones:
            found[phones] = None
        if len(found) == MAX_VARIANTS:
            break
    return list(found)


def _sounds(ipa: str) -> Iterator[_Sound]:
    text = unicodedata.normalize("NFD", ipa)
    # ç is one letter of IPA; a cedilla means nothing else there
    text = text.replace("c\u0327", "ç")
    plain: list[str] = []
    marks: list[set[str]] = []
    for char in text:
        if char in _TABLE:
            plain.append(char)
            marks.append(set())
        elif plain and unicodedata.category(char)[0] == "M":
            marks[-1].add(char)
    at = 0
    while at < len(plain):
        for length in range(min(_LONGEST, len(plain) - at), 0, -1):
            spelled = "".join(plain[at : at + length])
            if spelled in _TABLE:
                break
        held = set().union(*marks[at : at + length])
        if _SYLLABIC in held and plain[at] not in _VOWELS:
            yield ("AH",)
        yield tuple(_TABLE[spelled].split("|"))
        if _NASAL in held and plain[at] in _VOWELS:
            yield ("", "N")
        at += length


def _merged(phones: Sequence[str]) -> tuple[str, ...]:
    merged: list[str] = []
    for phone in phones:
        if merged and merged[-1] == phone:
            continue
        if merged and (joined := _DIPHTHONGS.get((merged[-1], phone))):
            merged[-1] = joined
        else:
            merged.append(phone)
    return tuple(merged)
