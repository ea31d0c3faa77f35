"""How Chinese, Cantonese and Japanese are read."""

# ruff: noqa: RUF001  full-width punctuation
from __future__ import annotations

import pytest

from aligner_svc.text.model_words import split
from aligner_svc.text.spoken import tokenise
from aligner_svc.text.spoken.han import number


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "零"), (10, "十"), (15, "十五"), (20, "二十"), (105, "一百零五"), (110, "一百一十"), (1005, "一千零五"),
        (10_000, "一万"), (10_500, "一万零五百"), (100_005, "十万零五"), (1_200_034, "一百二十万零三十四"), (10**8, "一亿"),
    ],
)  # fmt: skip
def test_numbers_in_characters(value: int, said: str) -> None:
    assert number(value) == said


@pytest.mark.parametrize(
    ("language", "text", "spoken"),
    [
        ("zh", "银行行长", "yin2 hang2 hang2 zhang3"),  # read in the whole text
        ("zh", "25%", "bai3 fen1 zhi1 er4 shi2 wu3"),
        ("zh", "¥5", "wu3 yuan2"),
        ("zh", "2024年", "er4_ling2_er4_si4|er4_qian1_ling2_er4_shi2_si4 nian2"),
        ("zh", "14:30", "shi2_si4_dian3_san1_shi2_fen1|shi2_si4_dian3_san1_shi2"),
        ("zh", "3.14", "san1 dian3 yi1 si4"),
        ("zh", "用WiFi", "yong4 wifi"),
    ],
)
def test_chinese(language: str, text: str, spoken: str) -> None:
    assert " ".join(word for token in tokenise(text, language) for word in token.spoken) == spoken


def test_chinese_has_the_words_and_offsets_of_the_qwen_engine() -> None:
    text = "昨晚，我打开 iPhone 15 的门。"
    assert [(t.text, t.char_start, t.char_end) for t in tokenise(text, "zh")] == [
        (t.text, t.char_start, t.char_end) for t in split(text, "zh")
    ]


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("私は東京へ行きました。", "わたくし わ とうきょう え いき まし た"),  # particles are said otherwise than written
        ("本を", "ほん お"),
        ("ラーメン OK", "らーめん ok"),
        ("21", "にじゅう いち"),
    ],
)
def test_japanese(text: str, spoken: str) -> None:
    pytest.importorskip("sudachidict_small", reason="an extra")
    said = [word for token in tokenise(text, "ja") for word in token.spoken]
    assert "".join(said) == spoken.replace(" ", "")


def test_japanese_offsets_are_those_of_the_text() -> None:
    pytest.importorskip("sudachidict_small", reason="an extra")
    text = "夏は\n𠮷野家、東京。"
    assert "".join(text[t.char_start : t.char_end] for t in tokenise(text, "ja")) == "夏は𠮷野家東京"
