"""Syllables of Mandarin (pinyin) and Cantonese (jyutping) in the phones of the English acoustic model.

Both are closed sets. Stops without aspiration become voiced ones, which English says without it too; tones are left out.
"""

from __future__ import annotations

import re
from itertools import product
from typing import Final

from aligner_svc.engines.pocketsphinx.languages.recogniser import Ways

_SYLLABLE = re.compile(r"([a-zü]+)([0-9])")
_MAX_WAYS = 4

_PINYIN_INITIALS: Final = {
    "zh": "JH", "ch": "CH", "sh": "SH", "b": "B", "p": "P", "m": "M", "f": "F", "d": "D", "t": "T", "n": "N", "l": "L", "g": "G",
    "k": "K", "h": "HH", "j": "JH", "q": "CH", "x": "SH", "r": "R|ZH", "z": "D Z", "c": "T S", "s": "S",
}  # fmt: skip
_PINYIN_FINALS: Final = {
    "a": "AA", "o": "AO|W AO", "e": "AH", "i": "IY", "u": "UW", "ü": "UW|IY", "ai": "AY", "ei": "EY", "ao": "AW", "ou": "OW",
    "an": "AA N|AE N", "en": "AH N", "ang": "AA NG", "eng": "AH NG", "ong": "UH NG|AO NG", "er": "AA R|ER", "r": "ER|R",
    "ia": "Y AA", "ie": "Y EH", "iao": "Y AW", "iu": "Y OW", "iou": "Y OW", "ian": "Y EH N", "in": "IY N|IH N",
    "iang": "Y AA NG", "ing": "IY NG|IH NG", "iong": "Y UH NG", "io": "Y AO", "ua": "W AA", "uo": "W AO", "uai": "W AY",
    "ui": "W EY", "uei": "W EY", "uan": "W AA N|W AE N", "un": "W AH N", "uen": "W AH N", "uang": "W AA NG", "ueng": "W AH NG",
    "üe": "Y EH|Y UW EH", "üan": "Y EH N|Y UW AE N", "ün": "IY N|UW N", "ê": "EH", "m": "AH M", "n": "AH N", "ng": "AH NG",
}  # fmt: skip
_ZERO_INITIAL: Final = (
    (re.compile("^yu"), "ü"),
    (re.compile("^yi"), "i"),
    (re.compile("^y"), "i"),
    (re.compile("^wu"), "u"),
    (re.compile("^w"), "u"),
)

_JYUTPING: Final = re.compile(r"(ng|gw|kw|[bpmfdtnlgkhwzcsj])?(aa|oe|eo|yu|[aeiou]|m|ng)?(ng|[iumnptk])?")
_JYUTPING_INITIALS: Final = {
    "b": "B", "p": "P", "m": "M", "f": "F", "d": "D", "t": "T", "n": "N|L", "l": "L", "g": "G", "k": "K", "ng": "NG|", "h": "HH",
    "gw": "G W", "kw": "K W", "w": "W", "z": "D Z|JH", "c": "T S|CH", "s": "S", "j": "Y",
}  # fmt: skip
_NUCLEI: Final = {
    "aa": "AA", "a": "AH", "e": "EH", "i": "IY", "o": "AO", "u": "UW", "oe": "ER|AO", "eo": "UH|ER", "yu": "UW|IY", "m": "AH M",
    "ng": "AH NG",
}  # fmt: skip
_DIPHTHONGS: Final = {"aai": "AY", "ai": "AY", "aau": "AW", "au": "AW", "ei": "EY", "oi": "OY", "ou": "OW", "eoi": "OY|ER IY"}
_CODAS: Final = {"i": "IY", "u": "UW", "m": "M", "n": "N", "ng": "NG", "p": "P|", "t": "T|", "k": "K|"}
"""Final stops are not released: with the phone, or without."""


def ways(syllable: str, language: str) -> Ways:
    """The pronunciations of a syllable with its tone, e.g. "zhong1"; empty if it is none of `language`, zh or yue."""
    match = _SYLLABLE.fullmatch(syllable)
    if match is None:
        return ()
    parts = _jyutping(match[1]) if language == "yue" else _pinyin(match[1])
    if not parts:
        return ()
    found = {tuple(" ".join(choice).split()): None for choice in product(*(part.split("|") for part in parts))}
    return tuple(phones for phones in found if phones)[:_MAX_WAYS]


def _pinyin(syllable: str) -> list[str]:
    if syllable in {"r", "er"}:
        return [_PINYIN_FINALS[syllable]]
    for pattern, vowel in _ZERO_INITIAL:
        if pattern.match(syllable):
            final = pattern.sub(vowel, syllable)
            return [_PINYIN_FINALS[final]] if final in _PINYIN_FINALS else []
    initial = syllable[:2] if syllable[:2] in _PINYIN_INITIALS else syllable[:1]
    if initial not in _PINYIN_INITIALS or syllable in _PINYIN_FINALS:
        return [_PINYIN_FINALS[syllable]] if syllable in _PINYIN_FINALS else []
    final = syllable[len(initial) :]
    if final == "i" and initial in {"z", "c", "s"}:
        return [_PINYIN_INITIALS[initial], "AH|IH"]
    if final == "i" and initial in {"zh", "ch", "sh", "r"}:
        return [_PINYIN_INITIALS[initial], "ER|IH"]
    if initial in {"j", "q", "x"}:
        final = re.sub("^u", "ü", final)
    return [_PINYIN_INITIALS[initial], _PINYIN_FINALS[final]] if final in _PINYIN_FINALS else []


def _jyutping(syllable: str) -> list[str]:
    if syllable in {"m", "ng"}:
        return [_NUCLEI[syllable]]
    match = _JYUTPING.fullmatch(syllable)
    if match is None or match[2] is None:
        return []
    initial, nucleus, coda = match.groups(default="")
    parts = [_JYUTPING_INITIALS[initial]] if initial else []
    if nucleus + coda in _DIPHTHONGS:
        return [*parts, _DIPHTHONGS[nucleus + coda]]
    return [*parts, _NUCLEI[nucleus], *([_CODAS[coda]] if coda else [])]
