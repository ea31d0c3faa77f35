"""IPA becomes the English phones that are closest, with a pronunciation for each choice."""

# ruff: noqa: RUF001  letters of IPA look like Latin ones
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_svc.engines.pocketsphinx.boundaries import CLASS_OF
from aligner_svc.engines.pocketsphinx.languages.ipa import MAX_VARIANTS, phones_of, symbol, variants

LETTERS = "pbtdkɡqcɟɲŋfvβθðszʃʒçxhɣʁmnlʎrɾjɥwiyɨɯuɪʊeøoəɛœɔaɑæ ˈˌːʲ̯̩̃̊."


@pytest.mark.parametrize(
    ("ipa", "phones"),
    [
        ("ˈvasɐ", "V AA S AH"),
        ("tsaɪt", "T S AY T"),
        ("ˈtʃitta", "CH IY T AA"),  # doubled phones are one
        ("ɲ", "N Y"),
        ("ɡɟ", "G G Y"),
        ("ˈhuːs", "HH UW S"),
        ("ˈhaːbn̩", "HH AA B AH N"),
        ("a.i", "AY"),
        ("ʔa", "AA"),
        ("ç", "SH"),
        ("t͡sʲ", "T S"),
    ],
)
def test_the_likeliest_pronunciation(ipa: str, phones: str) -> None:
    assert " ".join(phones_of(variants(ipa)[0])) == phones.replace("G G", "G")


@pytest.mark.parametrize(
    ("ipa", "sounds"),
    [
        ("ˈtseːnɐ", "ts=T+S eː=EY n=N ɐ=AH"),  # length is kept, stress is not
        ("t͡sʲa", "t͡sʲ=T+S a=AA"),
        ("ˈtʃitta", "tʃ=CH i=IY tː=T a=AA"),  # doubled is long
        ("faˈmiʎʎa", "f=F a=AA m=M i=IY ʎː=L+Y+L+Y a=AA"),
        ("ˈhaːbn̩", "h=HH aː=AA b=B n̩=AH+N"),
        ("a.i", "ai=AY"),
        ("ə.ɐ", "əɐ=AH"),  # the model has no edge between them
        ("çaʔa", "ç=SH aː=AA"),  # no phone, no sound
        ("bá", "b=B a=AA"),
    ],
)
def test_each_sound_is_told_as_ipa_with_its_phones(ipa: str, sounds: str) -> None:
    assert " ".join(f"{one.symbol}={'+'.join(one.phones)}" for one in variants(ipa)[0]) == sounds


def test_a_nasal_vowel_is_one_sound_whether_a_nasal_is_heard_after_it_or_not() -> None:
    assert [[one.symbol for one in way] for way in variants("bɔ̃")] == [["b", "ɔ̃"]] * 2


def test_given_symbols_are_sounds_of_their_own() -> None:
    assert [one.symbol for one in variants(["t", "s", "a"])[0]] == ["t", "s", "a"]
    assert [symbol(one) for one in ("t͡s", "aː", "ˈa", "", "ː", "7", "a|b", "東")] == ["t͡s", "aː", "ˈa", *[None] * 5]


def test_each_choice_is_a_pronunciation_and_alike_throughout_the_word() -> None:
    assert [" ".join(phones_of(way)) for way in variants("rer")] == ["R EY R", "R EH R", "D EY D", "D EH D"]
    assert [" ".join(phones_of(way)) for way in variants("ɔ̃")] == ["AO", "AO N"]


@pytest.mark.parametrize("nothing", ["", "ˈ", "   ", "ʔ", "漢字", "12"])
def test_what_has_no_sound_has_no_pronunciation(nothing: str) -> None:
    assert variants(nothing) == []


@given(st.text(alphabet=LETTERS, max_size=40))
def test_only_phones_of_the_model_and_few_of_them(ipa: str) -> None:
    found = [phones_of(way) for way in variants(ipa)]
    assert len(found) == len(set(found)) <= MAX_VARIANTS
    assert all(phones and all(phone in CLASS_OF and phone != "SIL" for phone in phones) for phones in found)
