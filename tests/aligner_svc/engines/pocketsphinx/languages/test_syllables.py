"""Syllables of Mandarin and Cantonese in English phones and in IPA."""

from __future__ import annotations

import re

import pytest
from pypinyin.constants import PINYIN_DICT
from pypinyin.contrib.tone_convert import to_tone3

from aligner_svc.engines.pocketsphinx.boundaries import CLASS_OF
from aligner_svc.engines.pocketsphinx.languages.ipa import phones_of
from aligner_svc.engines.pocketsphinx.languages.syllables import ways


@pytest.mark.parametrize(
    ("language", "syllable", "phones", "ipa"),
    [
        ("zh", "zhong1", "JH UH NG", "ʈʂ ʊ ŋ"),
        ("zh", "wo3", "W AO", "w o"),
        ("zh", "yue4", "Y EH", "ɥ e"),
        ("zh", "ju2", "JH UW", "tɕ y"),
        ("zh", "lü4", "L UW", "l y"),
        ("zh", "shi4", "SH ER", "ʂ ɻ̩"),
        ("zh", "er2", "AA R", "ɚ"),
        ("zh", "qian2", "CH Y EH N", "tɕʰ j ɛ n"),
        ("yue", "ngo5", "NG AO", "ŋ ɔ"),
        ("yue", "m4", "AH M", "m̩"),
        ("yue", "jyut6", "Y UW T", "j y t̚"),
        ("yue", "gwong2", "G W AO NG", "kʷ ɔ ŋ"),
        ("yue", "heoi3", "HH OY", "h ɵy"),
    ],
)
def test_the_likeliest_pronunciation(language: str, syllable: str, phones: str, ipa: str) -> None:
    likeliest = ways(syllable, language)[0]
    assert (" ".join(phones_of(likeliest)), " ".join(sound.symbol for sound in likeliest)) == (phones, ipa)


def test_every_syllable_that_the_dictionary_of_pinyin_has_is_known() -> None:
    written = {part for readings in PINYIN_DICT.values() for part in readings.split(",")}
    syllables = {to_tone3(part, v_to_u=True, neutral_tone_with_five=True) for part in written}
    unknown = {re.sub(r"\d", "", syllable) for syllable in syllables if not ways(syllable, "zh")}
    assert unknown <= {"wong", "ê"}  # Cantonese, and an interjection
    sounds = {sound for syllable in syllables for way in ways(syllable, "zh") for sound in way}
    assert {phone for sound in sounds for phone in sound.phones} <= set(CLASS_OF)
    assert all(sound.symbol and sound.phones for sound in sounds)


@pytest.mark.parametrize("word", ["", "ok", "zhong", "zzz1", "1"])
def test_what_is_no_syllable_has_no_pronunciation(word: str) -> None:
    assert ways(word, "zh") == ways(word, "yue") == ()
