"""IPA becomes the English phones that are closest, with a pronunciation for each choice."""

# ruff: noqa: RUF001  letters of IPA look like Latin ones
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_svc.engines.pocketsphinx.boundaries import CLASS_OF
from aligner_svc.engines.pocketsphinx.languages.ipa import MAX_VARIANTS, variants

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
    found = variants(ipa)[0]
    merged = " ".join(found)
    assert merged == phones.replace("G G", "G")


def test_each_choice_is_a_pronunciation_and_alike_throughout_the_word() -> None:
    assert [" ".join(phones) for phones in variants("rer")] == ["R EY R", "R EH R", "D EY D", "D EH D"]
    assert [" ".join(phones) for phones in variants("ɔ̃")] == ["AO", "AO N"]


@pytest.mark.parametrize("nothing", ["", "ˈ", "   ", "ʔ", "漢字", "12"])
def test_what_has_no_sound_has_no_pronunciation(nothing: str) -> None:
    assert variants(nothing) == []


@given(st.text(alphabet=LETTERS, max_size=40))
def test_only_phones_of_the_model_and_few_of_them(ipa: str) -> None:
    found = variants(ipa)
    assert len(found) == len(set(found)) <= MAX_VARIANTS
    assert all(phones and all(phone in CLASS_OF and phone != "SIL" for phone in phones) for phones in found)
