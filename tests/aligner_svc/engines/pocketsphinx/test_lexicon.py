"""Every word has a pronunciation of bounded length."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_svc.engines.pocketsphinx.boundaries import CLASS_OF, SILENCE
from aligner_svc.engines.pocketsphinx.lexicon import Speller

PHONES = frozenset(CLASS_OF) - {SILENCE}
MAX_PHONES = 64 * 7
"""Every letter that is spelled, pronounced as "double u"."""


@pytest.fixture(scope="module")
def speller() -> Speller:
    return Speller()


@pytest.mark.parametrize(("word", "begins"), [("wizard", "W"), ("kubernetes", "K"), ("zigzaggy", "Z"), ("o'malley", "OW")])
def test_words_that_are_in_no_dictionary(speller: Speller, word: str, begins: str) -> None:
    phones = speller.phones(word)
    assert phones[0] == begins
    assert 4 <= len(phones) <= 10


@pytest.mark.parametrize(
    "word", ["", "'", "''''", "'em", "brrrrrr", "brrr" * 10, "x", "qqqq", "z" * 33, "a" * 200, "a'b" * 60, "'" * 70 + "a", "hm"]
)
def test_it_never_fails(speller: Speller, word: str) -> None:
    phones = speller.phones(word)
    assert 0 < len(phones) <= MAX_PHONES
    assert set(phones) <= PHONES


def test_a_word_that_cannot_be_read_is_spelled_out(speller: Speller) -> None:
    assert speller.phones("x") == ("EH", "K", "S")


def test_stress_is_not_part_of_a_phone(speller: Speller) -> None:
    assert not any(re.search(r"\d", phone) for phone in speller.phones("extraordinary"))


def test_the_same_word_has_the_same_phones(speller: Speller) -> None:
    assert speller.phones("kubernetes") == Speller().phones("kubernetes")


@settings(max_examples=40)
@given(st.text("abcdefghijklmnopqrstuvwxyz'", max_size=80))
def test_any_word(word: str) -> None:
    phones = _SPELLER.phones(word)
    assert 0 < len(phones) <= MAX_PHONES
    assert set(phones) <= PHONES


_SPELLER = Speller()


def test_several_ways_to_say_a_word_have_the_phones_of_the_first(speller: Speller) -> None:
    assert speller.phones("ten_thirty|half_past_ten") == speller.phones("ten") + speller.phones("thirty")
