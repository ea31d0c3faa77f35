"""Which characters of a transcript are refused and which are not."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_svc.errors import InvalidArgumentError
from aligner_svc.text.characters import check_characters, check_marks, first_refused

EVERY = range(0x110000)
BIDI = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def refused_by_the_book(point: int) -> bool:
    char = chr(point)
    if point in BIDI or point & 0xFFFE == 0xFFFE or 0xFDD0 <= point <= 0xFDEF:
        return True
    return unicodedata.category(char) in {"Cc", "Co", "Cs"} and char not in "\t\n\r"


def test_every_code_point():
    """The code lists what is accepted, this test what is refused."""
    refused = [point for point in EVERY if first_refused(chr(point)) is not None]
    assert refused == [point for point in EVERY if refused_by_the_book(point)]


@pytest.mark.parametrize(
    ("char", "name"),
    [
        ("\0", "U+0000 (NULL)"),
        ("\x1b", "U+001B (ESCAPE)"),
        ("\x7f", "U+007F (DELETE)"),
        ("\x85", "U+0085 (NEXT LINE)"),
        ("\x99", "U+0099 (a control character)"),
        ("\u202e", "U+202E (RIGHT-TO-LEFT OVERRIDE)"),
        ("\u2066", "U+2066 (LEFT-TO-RIGHT ISOLATE)"),
        ("\ue000", "U+E000 (a private-use character)"),
        ("\ud83d", "U+D83D (an unpaired surrogate)"),
        ("\ufdd0", "U+FDD0 (a noncharacter)"),
        ("\U0010ffff", "U+10FFFF (a noncharacter)"),
    ],
)
def test_the_message_has_its_name_and_place(char, name):
    with pytest.raises(InvalidArgumentError) as caught:
        check_characters(f"a secret \U0001f600{char} word{char}", offset=100)
    error = caught.value
    assert (error.reason, error.violations[0].field) == ("TRANSCRIPT_CHARACTER_REFUSED", "config.transcript")
    assert name in error.message
    assert "character 110" in error.message, "code points, from where the transcript begins"
    assert "secret" not in error.message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Tab\tand\r\nlines",
        "na\u00efve na\u0131\u0308ve",
        "\ufeffwith a BOM, soft\u00adhyphen, zero\u200bwidth, no\u00a0break",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f4\U000e0067\U000e0062\U000e007f \u2764\ufe0f",
        "\u05d0\u200f\u061c marks, which change no order by themselves",
        "\u2028\u2029 \ufffd \U0003ffff"[:-1],
        "\U0001fadf not assigned in every Unicode",
        "\u4e00\u3042\uac00\u0416",
    ],
)
def test_what_people_write_is_accepted(text):
    assert first_refused(text) is None
    check_marks(text)


@given(st.text())
def test_the_first_one_is_found(text):
    assert first_refused(text) == next((at for at, char in enumerate(text) if refused_by_the_book(ord(char))), None)


def test_more_than_30_marks_in_a_row_are_refused():
    """Vietnamese has two marks a letter, a Tibetan stack or a Hebrew letter with all its accents fewer than ten."""
    check_marks("e" + "\u0301\u0316" * 15 + "e" + "\u0301" * 30)
    with pytest.raises(InvalidArgumentError, match="30 combining marks in a row, at character 1") as caught:
        check_marks("e" + "\u0301\u0316" * 15 + "\u0301e")
    assert caught.value.reason == "TRANSCRIPT_MARKS_EXCESSIVE"
