"""Syllables of Mandarin (pinyin) and Cantonese (jyutping) in IPA and in the phones of the English acoustic model.

Both are closed sets. Stops without aspiration become voiced ones, which English says without it too; tones are left out.
"""

from __future__ import annotations

import re
from itertools import product
from typing import Final

from aligner_svc.engines.pocketsphinx.languages.ipa import Sound, Way, Ways, phones_of

_SYLLABLE = re.compile(r"([a-zü]+)([0-9])")
_MAX_WAYS = 4

_PINYIN_INITIALS: Final = {
    "zh": "ʈʂ = JH", "ch": "ʈʂʰ = CH", "sh": "ʂ = SH", "b": "p = B", "p": "pʰ = P", "m": "m = M", "f": "f = F", "d": "t = D",
    "t": "tʰ = T", "n": "n = N", "l": "l = L", "g": "k = G", "k": "kʰ = K", "h": "x = HH", "j": "tɕ = JH", "q": "tɕʰ = CH",
    "x": "ɕ = SH", "r": "ʐ = R|ZH", "z": "ts = D Z", "c": "tsʰ = T S", "s": "s = S",
}  # fmt: skip
_PINYIN_FINALS: Final = {
    "a": "a = AA", "o": "o = AO|W AO", "e": "ɤ = AH", "i": "i = IY", "u": "u = UW", "ü": "y = UW|IY", "ai": "ai = AY",
    "ei": "ei = EY", "ao": "au = AW", "ou": "ou = OW", "an": "a n = AA N|AE N", "en": "ə n = AH N", "ang": "a ŋ = AA NG",
    "eng": "ə ŋ = AH NG", "ong": "ʊ ŋ = UH NG|AO NG", "er": "ɚ = AA R|ER", "r": "ɚ = ER|R", "ia": "j a = Y AA",
    "ie": "j e = Y EH", "iao": "j au = Y AW", "iu": "j ou = Y OW", "iou": "j ou = Y OW", "ian": "j ɛ n = Y EH N",
    "in": "i n = IY N|IH N", "iang": "j a ŋ = Y AA NG", "ing": "i ŋ = IY NG|IH NG", "iong": "j ʊ ŋ = Y UH NG",
    "io": "j ɔ = Y AO", "ua": "w a = W AA", "uo": "w o = W AO", "uai": "w ai = W AY", "ui": "w ei = W EY",
    "uei": "w ei = W EY", "uan": "w a n = W AA N|W AE N", "un": "w ə n = W AH N", "uen": "w ə n = W AH N",
    "uang": "w a ŋ = W AA NG", "ueng": "w ə ŋ = W AH NG", "üe": "ɥ e = Y EH|Y UW EH", "üan": "ɥ ɛ n = Y EH N|Y UW AE N",
    "ün": "y n = IY N|UW N", "ê": "ɛ = EH", "m": "m̩ = AH M", "n": "n̩ = AH N", "ng": "ŋ̩ = AH NG",
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
    "b": "p = B", "p": "pʰ = P", "m": "m = M", "f": "f = F", "d": "t = D", "t": "tʰ = T", "n": "n = N|L", "l": "l = L",
    "g": "k = G", "k": "kʰ = K", "ng": "ŋ = NG|", "h": "h = HH", "gw": "kʷ = G W", "kw": "kʷʰ = K W", "w": "w = W",
    "z": "ts = D Z|JH", "c": "tsʰ = T S|CH", "s": "s = S", "j": "j = Y",
}  # fmt: skip
_NUCLEI: Final = {
    "aa": "a = AA", "a": "ɐ = AH", "e": "ɛ = EH", "i": "i = IY", "o": "ɔ = AO", "u": "u = UW", "oe": "œ = ER|AO",
    "eo": "ɵ = UH|ER", "yu": "y = UW|IY", "m": "m̩ = AH M", "ng": "ŋ̩ = AH NG",
}  # fmt: skip
_DIPHTHONGS: Final = {
    "aai": "ai = AY",
    "ai": "ɐi = AY",
    "aau": "au = AW",
    "au": "ɐu = AW",
    "ei": "ei = EY",
    "oi": "ɔi = OY",
    "ou": "ou = OW",
    "eoi": "ɵy = OY|ER IY",
}
_CODAS: Final = {
    "i": "i = IY",
    "u": "u = UW",
    "m": "m = M",
    "n": "n = N",
    "ng": "ŋ = NG",
    "p": "p̚ = P|",
    "t": "t̚ = T|",
    "k": "k̚ = K|",
}
"""Final stops are not released: with the phone, or without."""


def ways(syllable: str, language: str) -> Ways:
    """The pronunciations of a syllable with its tone, e.g. "zhong1"; empty if it is none of `language`, zh or yue."""
    match = _SYLLABLE.fullmatch(syllable)
    if match is None:
        return ()
    parts = _jyutping(match[1]) if language == "yue" else _pinyin(match[1])
    if not parts:
        return ()
    found: dict[tuple[str, ...], Way] = {}
    for choice in product(*map(_choices, parts)):
        way = tuple(sound for sounds in choice for sound in sounds)
        if way:
            found.setdefault(phones_of(way), way)
    return tuple(found.values())[:_MAX_WAYS]


def _choices(part: str) -> list[Way]:
    """The ways to say a part of a syllable. Phones beyond its letters of IPA belong to the first."""
    letters, _, choices = part.partition(" = ")
    symbols = letters.split()
    ways: list[Way] = []
    for choice in choices.split("|"):
        phones = choice.split()
        rest = len(phones) - len(symbols) + 1
        ways.append(tuple(map(Sound, symbols, [tuple(phones[:rest]), *((phone,) for phone in phones[rest:])])) if phones else ())
    return ways


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
        return [_PINYIN_INITIALS[initial], "ɹ̩ = AH|IH"]
    if final == "i" and initial in {"zh", "ch", "sh", "r"}:
        return [_PINYIN_INITIALS[initial], "ɻ̩ = ER|IH"]
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
