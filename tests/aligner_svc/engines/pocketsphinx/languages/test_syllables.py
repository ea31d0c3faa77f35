"""Syllables of Mandarin and Cantonese in English phones."""

from __future__ import annotations

import re

import pytest
from pypinyin.constants import PINYIN_DICT
from pypinyin.contrib.tone_convert import to_tone3

from aligner_svc.engines.pocketsphinx.boundaries import CLASS_OF
from aligner_svc.engines.pocketsphinx.languages.syllables import ways


@pytest.mark.parametrize(
    ("language", "syllable", "phones"),
    [
        ("zh", "zhong1", "JH UH NG"),
        ("zh", "wo3", "W AO"),
        ("zh", "yue4", "Y EH"),
        ("zh", "ju2", "JH UW"),
        ("zh", "lü4", "L UW"),
        ("zh", "shi4", "SH ER"),
        ("zh", "er2", "AA R"),
        ("zh", "qian2", "CH Y EH N"),
        ("yue", "ngo5", "NG AO"),
        ("yue", "m4", "AH M"),
        ("yue", "jyut6", "Y UW T"),
        ("yue", "gwong2", "G W AO NG"),
        ("yue", "heoi3", "HH OY"),
    ],
)
def test_the_likeliest_pronunciation(language: str, syllable: str, phones: str) -> None:
    assert " ".join(ways(syllable, language)[0]) == phones


def test_every_syllable_that_the_dictionary_of_pinyin_has_is_known() -> None:
    written = {part for readings in PINYIN_DICT.values() for part in readings.split(",")}
    syllables = {to_tone3(part, v_to_u=True, neutral_tone_with_five=True) for part in written}
    unknown = {re.sub(r"\d", "", syllable) for syllable in syllables if not ways(syllable, "zh")}
    assert unknown <= {"wong", "ê"}  # Cantonese, and an interjection
    assert {phone for syllable in syllables for way in ways(syllable, "zh") for phone in way} <= set(CLASS_OF)


@pytest.mark.parametrize("word", ["", "ok", "zhong", "zzz1", "1"])
def test_what_is_no_syllable_has_no_pronunciation(word: str) -> None:
    assert ways(word, "zh") == ways(word, "yue") == ()
