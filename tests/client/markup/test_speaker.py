"""Whom a label names, as it is written there."""

from __future__ import annotations

import pytest

from aligner_client.markup import Kind, Markup, speaker


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("MARY: Hello.\nJOHN SMITH: Good day.", ["MARY", "JOHN SMITH"]),
        ("[Speaker 1]: Hello.\n[Speaker 2]: Good day.", ["Speaker 1", "Speaker 2"]),
        (">> MARY: Hello. >> JOHN: Good day.", ["MARY", "JOHN"]),
        ("Q. Is it so?\nA. It is.", ["Q", "A"]),
        ("<v Mary>Hello</v> <v.loud John  Smith>Good day</v>", ["Mary", "John Smith"]),
        ("John Smith  0:05\nHello.\nMary Jones  0:09\nGood day.", ["John Smith", "Mary Jones"]),
        ("JOHN (sighing): Hello.", ["JOHN"]),
        ("- Interviewer: Hello.", ["Interviewer"]),
        ("SPEAKER_00: Hello. SPEAKER_01: Good day.", ["SPEAKER_00", "SPEAKER_01"]),
    ],
)
def test_names(text: str, names: list[str]) -> None:
    labels = [mark for mark in Markup.of(text).marks if mark.kind is Kind.LABEL]
    assert [speaker(mark.instead) for mark in labels] == names


def test_a_name_that_comes_back_with_every_word_is_not_as_long_as_the_text() -> None:
    assert len(speaker(f"<v {'a' * 100_000}>")) == 100
