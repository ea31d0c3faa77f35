"""Decomposed text is read composed, and its words keep their places in the text that was sent."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_svc.domain import Token
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.text import tokenise
from aligner_svc.text.composed import Composed

# Letters, what combines with them, what NFC takes apart (U+0958) or replaces (U+212B, U+1F71), Hangul whole and in letters.
ALPHABET = (
    "ae \u0301\u0316\u0323\u030a\u00e9\u212b\u1f71\u0958\u09c7\u09be"
    + "\u1112\u1161\u11ab\ud55c\uac00\u11a8\u3099\u304b\U0001f600\u0f73"
)


def words(text: str) -> list[Token]:
    """Words between spaces, enough for offsets."""
    tokens, at = [], 0
    for part in text.split(" "):
        if part:
            tokens.append(Token(part, at, at + len(part), (part,)))
        at += len(part) + 1
    return tokens


@given(st.text(ALPHABET, max_size=40) | st.text(max_size=40))
def test_it_is_the_nfc_of_the_text(text):
    assert Composed.of(text).text == unicodedata.normalize("NFC", text)


@given(st.text(ALPHABET, max_size=40))
def test_a_word_comes_back_as_it_was_sent(text):
    """A space combines only with what follows it, and every word is whole."""
    composed = Composed.of(text)
    for token, back in zip(words(composed.text), composed.tokens(words(composed.text)), strict=True):
        assert back.text == text[back.char_start : back.char_end]
        assert unicodedata.normalize("NFC", back.text).endswith(token.text)
        assert back.spoken == token.spoken


@given(st.text(ALPHABET, max_size=40))
def test_places_are_in_order(text):
    composed = Composed.of(text)
    each = [Token(char, at, at + 1, ()) for at, char in enumerate(composed.text)]
    end = 0
    for token in composed.tokens(each):
        assert token.char_start <= token.char_end <= len(text)
        assert token.char_end >= end
        end = token.char_end
    if text:
        assert end == len(text), "nothing of it is lost"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_words_do_not_depend_on_the_form(form):
    text = unicodedata.normalize(form, "The caf\u00e9\u2019s na\u00efve \u00c5ngstr\u00f6m r\u00e9sum\u00e9.")
    composed = Composed.of(text)
    tokens = composed.tokens(tokenise(composed.text, "en"))
    assert [unicodedata.normalize("NFC", token.text) for token in tokens] == [
        "The",
        "caf\u00e9\u2019s",
        "na\u00efve",
        "\u00c5ngstr\u00f6m",
        "r\u00e9sum\u00e9",
    ]
    assert [text[token.char_start : token.char_end] for token in tokens] == [token.text for token in tokens]
    assert [token.spoken for token in tokens] == [token.spoken for token in tokenise(composed.text, "en")]


def test_hangul_in_letters_is_read_in_syllables():
    text = unicodedata.normalize("NFD", "\ud55c\uad6d\uc5b4 \ub9d0")
    composed = Composed.of(text)
    assert composed.text == "\ud55c\uad6d\uc5b4 \ub9d0"
    assert [token.text for token in composed.tokens(words(composed.text))] == text.split(" ")


def test_composed_text_is_left_alone():
    text = "caf\u00e9 \U0001f600"
    tokens = words(text)
    assert Composed.of(text).tokens(tokens) is tokens


def test_too_many_marks_are_refused_before_they_are_sorted():
    """Sorting this one takes Python half a minute."""
    with pytest.raises(InvalidArgumentError, match="combining marks"):
        Composed.of("e" + "\u0301\u0316" * 100_000)
