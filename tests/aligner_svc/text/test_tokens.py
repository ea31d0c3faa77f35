# ruff: noqa: RUF001  look-alikes are the point
"""Every word keeps its place in the transcript."""

from __future__ import annotations

import random
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_svc.domain import Token
from aligner_svc.text import tokenise

# Characters that rules start from, which arbitrary text rarely has.
_AWKWARD = st.text(st.sampled_from(" aAbIVXsdtnr015'.,-:/$%&@#+=*_()°½²€–—’é\u0301\u00ad\u200b\x00世😀µ−"), max_size=60)
_PHRASES = st.lists(
    st.sampled_from(
        [
            "$5",
            "million",
            "Dr.",
            "St.",
            "3/4",
            "1",
            "10:30",
            "am",
            "555",
            "123-4567",
            "2021",
            "March",
            "U.S.",
            "FBI's",
            "5km",
            "km",
            "'90s",
            "VIII",
            "Henry",
            "a@b.co",
            "http://x.y/z",
            "http://x<y>z",
            "мир",
            "世界",
            "-",
            "...",
            "C++",
            "1,234.5",
            "½",
            "%",
            "co",
            "goin'",
            "5's's's",
        ]
    ),
    max_size=12,
).map(" ".join)
_TEXT = st.one_of(st.text(max_size=200), st.text(st.characters(exclude_categories=()), max_size=60), _AWKWARD, _PHRASES)


def is_part_of_a_word(char: str) -> bool:
    """A letter or digit of any script, but for the letters that stand for an apostrophe."""
    return unicodedata.category(char)[0] in "LN" and char not in "ʼʹˈ"


def check_offsets(text: str, tokens: tuple[Token, ...]) -> None:
    reached = 0
    for token in tokens:
        assert reached <= token.char_start < token.char_end <= len(text)
        assert token.text == text[token.char_start : token.char_end]
        assert token.spoken or any(map(is_part_of_a_word, token.text))
        reached = token.char_end


@settings(max_examples=400)
@given(_TEXT)
def test_any_text_in_english(text: str) -> None:
    tokens = tokenise(text, "en")
    check_offsets(text, tokens)
    for token in tokens:
        for word in token.spoken:
            for part in re.split("[|_]", word):
                assert re.fullmatch("[a-z]+(?:'[a-z]+)*|'(?:em|n|cause)", part)


@settings(max_examples=300)
@given(_TEXT)
def test_every_letter_and_digit_comes_back(text: str) -> None:
    covered = {place for token in tokenise(text, "en") for place in range(token.char_start, token.char_end)}
    assert [char for place, char in enumerate(text) if is_part_of_a_word(char) and place not in covered] == []


@settings(max_examples=300)
@given(st.text(st.sampled_from("abc XYZ,.!?"), max_size=60))
def test_no_plain_letter_is_lost(text: str) -> None:
    letters = "".join(char for token in tokenise(text, "en") for char in token.text if char.isalpha())
    assert letters == "".join(char for char in text if char.isalpha())


@pytest.mark.parametrize("text", ["", " ", "\n\t", "...", "\u2014", "\U0001f600", "\x00", "!?", "\u0301", "''", "$", "\u00a0"])
def test_nothing_to_say(text: str) -> None:
    assert tokenise(text, "en") == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"Hello," (she) said.', ["Hello", "she", "said"]),
        ("word\u2014word, word--word", ["word", "word", "word", "word"]),
        ("wait...what\u2026 the end.Then", ["wait", "what", "the", "end", "Then"]),
        ("[laughs] *sighs* <i>x</i>", ["laughs", "sighs", "i", "x", "i"]),
        ("\u2018quoted\u2019 'single' \u201cdouble\u201d \u00abla\u00bb", ["quoted", "single", "double", "la"]),
        ("$5.20, 50%! C++; #1.", ["$5.20", "50%", "C++", "#1"]),
        ("state-of-the-art pre- and post-war", ["state-of-the-art", "pre", "and", "post-war"]),
        ("U.S.-based", ["U.S.-based"]),
        ("cafe\u0301. soft\u00adhyphen\u00ad", ["cafe\u0301", "soft\u00adhyphen"]),
        ("dogs' goin' '90s 'tis", ["dogs", "goin", "'90s", "'tis"]),
        ("1,2,3 and 1,234", ["1", "2", "3", "and", "1,234"]),
        ("see (http://a.io/b(c)).", ["see", "http://a.io/b(c"]),
        ("<a>http://a.io/b?c=d</a> \u201chttp://c.io\u201dnow", ["a", "http://a.io/b?c=d", "a", "http://c.io", "now"]),
        ("word(s) f(x)", ["word(s)", "f", "x"]),
        ("\ufeffbom\r\nline", ["bom", "line"]),
        ("- item one\n- item two", ["item", "one", "item", "two"]),
        ("A\u0301b\U0001f1e9\U0001f1eac", ["A\u0301b", "c"]),
    ],
)
def test_where_words_end(text: str, words: list[str]) -> None:
    tokens = tokenise(text, "en")
    check_offsets(text, tokens)
    assert [token.text for token in tokens] == words


def test_offsets_count_code_points() -> None:
    (first, second) = tokenise("\U0001f600 a\U0001f600b", "en")
    assert (first.char_start, first.char_end, second.char_start, second.char_end) == (2, 3, 4, 5)


@pytest.mark.parametrize(
    ("text", "unread"),
    [
        ("hello мир 你好 world", ["мир", "你好"]),
        ("日本語のテキスト、です。", ["日本語のテキスト", "です"]),
        ("مرحبا, नमस्ते! 안녕 😀", ["مرحبا", "नमस्ते", "안녕"]),
        ("что-то ¹", ["что-то", "¹"]),
    ],
)
def test_a_word_that_english_cannot_read_comes_back_unread(text: str, unread: list[str]) -> None:
    tokens = tokenise(text, "en")
    check_offsets(text, tokens)
    assert [token.text for token in tokens if not token.spoken] == unread


@pytest.mark.parametrize("language", ["de", "zh", "xx", "EN", ""])
def test_a_language_without_rules_is_refused(language: str) -> None:
    with pytest.raises(ValueError, match="no reading rules for"):
        tokenise("hello", language)


_RANDOM = random.Random(7)
_HARD = {
    "prose": "Dr. Smith went to St. Louis in 1984, and paid $5.20 (or 50%) for state-of-the-art gear -- didn't he? ",
    "numbers": "".join(
        f"{_RANDOM.randrange(10**7)} ${_RANDOM.randrange(10**4)}.{_RANDOM.randrange(10, 100)} " for _ in range(400)
    ),
    "letter": "a",
    "digit": "1",
    "hyphen": "-",
    "a-": "a-",
    "a.": "a.",
    "1,": "1,",
    "10,": "10,",
    "1:": "1:",
    "a@": "a@",
    "http": "http://",
    "quoted http": "http://<",
    "'s": "5's",
    "mark": "\u0301a\u0301",
    "invisible": "a\u00ad",
    "half": "½",
    "ligature": "\ufdfa",
    "capital": "BA",
    "vowelless": "BCD",
    "dotted": "U.S.-",
    "foreign": "я ",
    "mixed": "A1",
    "paren": "s(s)",
    "money": "$1",
}


@pytest.mark.parametrize("name", _HARD)
def test_a_long_text_of_hard_cases_is_read(name: str) -> None:
    """A rule of quadratic cost would take minutes for it, over the test's timeout."""
    text = (_HARD[name] * (100_000 // len(_HARD[name]) + 1))[:100_000]
    tokenise(text, "en")
