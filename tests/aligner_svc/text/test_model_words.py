# ruff: noqa: RUF001  look-alikes are the point
"""The model gets the reference's words; the caller gets the spelling of the transcript back."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_svc.domain import Token
from aligner_svc.text import model_words as words
from aligner_svc.text.model_words import LANGUAGES, split

Reference = Callable[[str, str], list[str]]

_NAMES = {"ja": "Japanese", "ko": "Korean"}  # to the reference every other language is the same
_SPACED = sorted(LANGUAGES - set(_NAMES))
_SPEECH = {
    "zh": "甚至出现交易几乎停滞的情况。一二线城市，虽然也处于调整中（2019年），但因为聚集了过多公共资源。",
    "en": "“Hello,” she said — it's 3.14 o'clock: state-of-the-art U.S. can’t 'quote' dogs' $5.20, 50%! a_b www.x.org",
    "yue": "呢啲係咩嘢嚟㗎？我哋𠮶陣時都唔知，OK嘅。佢話：「冇問題」！",
    "fr": "L'été dernier, j’ai vu l’Hôtel-de-Ville… « C'est ça ! » aujourd'hui, 1 234,50 €",
    "de": "Die Straße führt über Köln-Ehrenfeld; „Grüß Gott!“ z. B. um 8:30 Uhr, geht's?",
    "it": "Un po' d'acqua, perché l'università dell’Aquila è lì. Città 'bella'.",
    "ja": "今日はとても良い天気なので、東京スカイツリーへ行きました。私はPythonで3.14と「書いて」います！ ﾊﾝｶｸ、㌔メートル、½",
    "ko": "안녕하세요, “오늘은” 날씨가 정말 좋네요. 3.14는 파이입니다! ㅋㅋ 국립국어원에서 Python으로 AI기술을",
    "pt": "Não há informações: o avô e a avó — à mão, guarda-chuva, R$ 10,50 e 'tá bom'.",
    "ru": "Съешь же ещё этих мягких французских булок, да выпей чаю… кто-то №5, «ёлка»",
    "es": "¿Dónde está el niño? ¡Aquí! El 50 % de 1.000 pingüinos, según él.",
}
# fmt: off
_HOSTILE = [
    "", " ", "'", "''", " ' ", "'a'", "...", "\n\t", "\x00", "a\x00b", "\ud800", "a\ud800b\udfff", "\u3000", "\u00a0a\u00a0b",
    "\ufeffa", "a\u00adb\u00ad", "a\u200db", "a\u200bb", "\u0301", "\u0301a", "e\u0301", "e\u200d\u0301x", "İ", "I\u0307x", "İİ",
    "我,你", "AI技术", "技'术", "a-我-b", "\ufa6e", "我\u0301你", "我用Python写code", "👍", "A👍🏽B", "1️⃣2", "①②Ⅳ½", "Ａ１＇",
    "नमस्ते दुनिया क्\u200dष", "ภาษาไทย น้ำ", "مرحبا بِكُم", "a\x1cb\x85c\u2028d", "㌔", "㎯", "ﷺ", "㈱東京", "ｶﾞｷﾞ", "か\u3099", "゛か゛",
    "\uff9e", "\u3099か", "한국", "\u1112\u1161\u11ab", "ㅎㅏㄴ", "가나\u0301다", "가나다라마바사", "ﬁﬂ", "Σας ΣΑΣ",
    "℃´¨", "''가나다''",
]
# fmt: on
_SPEECH_PIECES = [piece for line in _SPEECH.values() for piece in line[::3]]
_PIECES = [*" ,.'’-“”!\u3000\n\u0301\u00ad\u200d\ufe0f\x00", *_HOSTILE, *_SPEECH_PIECES]
_TEXT = st.one_of(
    st.text(max_size=30),
    st.text(st.characters(exclude_categories=()), max_size=20),
    st.lists(st.sampled_from(_PIECES), max_size=20).map("".join),
)


@pytest.fixture(scope="module")
def reference() -> Reference:
    # The import loads dynet, which turns subnormal floats off for the thread that it happens in.
    with ThreadPoolExecutor(1) as loader:
        module = loader.submit(import_module, "qwen_asr.inference.qwen3_forced_aligner").result()
    processor = module.Qwen3ForceAlignProcessor()
    return lambda text, language: processor.encode_timestamp(text, _NAMES.get(language, "English"))[0]


def check(text: str, language: str, reference: Reference) -> tuple[Token, ...]:
    tokens = split(text, language)
    assert [token.spoken for token in tokens] == [(word,) for word in reference(text, language)]
    start = end = 0
    for token in tokens:
        assert token.text == text[token.char_start : token.char_end] != ""
        assert start <= token.char_start
        assert end <= token.char_start or (language == "ja" and end == token.char_end)  # apart, or sharing
        start, end = token.char_start, token.char_end
    return tokens


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_speech_is_split_as_in_training(language: str, reference: Reference) -> None:
    for text in _SPEECH.values():
        assert check(text, language, reference)


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_hostile_text_is_split_as_in_training(language: str, reference: Reference) -> None:
    for text in _HOSTILE:
        check(text, language, reference)
    check("".join(_HOSTILE), language, reference)
    check("\n".join(_HOSTILE), language, reference)


@settings(max_examples=200)
@given(text=_TEXT, language=st.sampled_from(_SPACED))
def test_any_text_between_spaces(text: str, language: str, reference: Reference) -> None:
    check(text, language, reference)


@settings(max_examples=200)
@given(text=_TEXT)
def test_any_text_in_korean(text: str, reference: Reference) -> None:
    check(text, "ko", reference)


@settings(max_examples=200)
@given(text=_TEXT)
def test_any_text_in_japanese(text: str, reference: Reference) -> None:
    check(text, "ja", reference)


def test_every_character(reference: Reference) -> None:
    """Between two letters, where a character may split, join, vanish or be a word."""
    every = [chr(point) for point in range(0x110000) if unicodedata.category(chr(point)) not in {"Cn", "Co"}]
    check("".join(f"a{char}b " for char in every), "en", reference)


def test_every_word_of_the_korean_dictionary(reference: Reference) -> None:
    """Some begin with another: the longest is used."""
    stems = sorted(words.korean_stems()[0])
    check(" ".join(f"{stem}은" for stem in stems), "ko", reference)
    check(" ".join(stems), "ko", reference)


def test_offsets_after_every_character_that_nagisa_rewrites() -> None:
    """Although normalising changes the length of the text before them."""
    rewritten = [char for char in map(chr, range(0x110000)) if not unicodedata.is_normalized("NFKC", char)]
    text = "".join(f"の{char}" for char in rewritten)
    normalised, starts, ends = words.normalise(text)
    assert len(starts) == len(ends) == len(normalised)
    origins = [start for start, char in zip(starts, normalised, strict=True) if char == "の"]
    assert origins == list(range(0, len(text), 2))


_COMPOSING = "かハｶﾞﾟ\u3099 \u0301\u0316\u200dIİeé\u1112\u1161\u11ab하ㅎㅏㄴﾾￂￚ\u09c7\u09be\u0cc6\u0cc2\u0cd5½㌔ﷺ"


@settings(max_examples=200)
@given(text=st.one_of(_TEXT, st.text(st.sampled_from(_COMPOSING), max_size=12)))
def test_text_is_normalised_as_by_nagisa(text: str) -> None:
    assert words.normalise(text.rstrip())[0] == words.load_nagisa().utils.preprocess(text)


@pytest.mark.parametrize(
    ("language", "text", "spelled"),
    [
        ("en", "“Hello,” (she) said.", "Hello|she|said"),
        ("en", "state-of-the-art 3.14 can’t U.S. don't—stop", "state-of-the-art|3.14|can’t|U.S|don't—stop"),
        ("en", "'single' po' l’ 'twas ' n", "single|po|l|twas|'|n"),
        ("en", "soft\u00adhyphen\u00ad zero\u200dwidth\u200d \ufeffbom", "soft\u00adhyphen|zero\u200dwidth|bom"),
        ("en", "e\u200d\u0301! a\u0301\u200d\u0301\u200d", "e\u200d\u0301|a\u0301\u200d\u0301"),
        ("fr", "e\u0301te\u0301, \u0301a", "e\u0301te\u0301|a"),
        ("en", "A👍🏽B 👍 1️⃣ ½ Ａ１", "A👍🏽B|1️⃣|½|Ａ１"),
        ("en", "नमस्ते, क्\u200dष्\u200d। ภาษาไทยนี้!", "नमस्ते|क्\u200dष्|ภาษาไทยนี้"),
        ("zh", "我用Python写code。", "我|用|Python|写|code"),
        ("zh", "我,你 AI-技术（a—b）", "我|你|AI|技|术|a—b"),
        ("yue", "我\u0301哋\ufe00，𠮶！", "我\u0301|哋\ufe00|𠮶"),
        ("ko", "안녕하세요, “오늘은” 3.14는", "안녕|하세요|오늘은|3.14는"),
        ("ko", "날씨\u0301가", "날씨\u0301|가"),
        ("ja", "今日は、良い天気 です。", "今日|は|良い|天気|です"),
        ("ja", "㌔メートル", "㌔メートル"),
        ("ja", "½カップ", "½|½|カップ"),
        ("ja", "ﾊﾝｶﾞｰ　か\u3099っこう", "ﾊﾝｶﾞｰ|か\u3099っこう"),
        ("ja", "　\n今日", "今日"),
        ("ja", "か\u200d\u3099、", "か\u200d\u3099"),
        ("ja", "\u1112\u1161\u11ab今日", "\u1112\u1161\u11ab|今日"),
        ("ja", "I\u0307x İx", "I\u0307x|İx"),
        ("ja", "ﷺ東京", "ﷺ|ﷺ|ﷺ|ﷺ|ﷺ|東京"),
    ],
)
def test_the_caller_gets_the_spelling_of_the_transcript(language: str, text: str, spelled: str, reference: Reference) -> None:
    assert [token.text for token in check(text, language, reference)] == spelled.split("|")


def test_offsets_count_code_points() -> None:
    assert split("😀 “né” 𠮶x", "zh") == (
        Token("né", 3, 5, ("né",)),
        Token("𠮶", 7, 8, ("𠮶",)),
        Token("x", 8, 9, ("x",)),
    )


@pytest.mark.parametrize("language", sorted(LANGUAGES))
@pytest.mark.parametrize("text", ["", " \u3000\n", "...", "—", "😀", "\x00", "\u0301", "\ud800"])
def test_text_without_words(text: str, language: str) -> None:
    assert split(text, language) == ()


@pytest.mark.parametrize("language", ["", "xx", "Japanese", "JA"])
def test_an_unknown_language_is_refused(language: str) -> None:
    with pytest.raises(ValueError, match=repr(language)):
        split("a", language)


@pytest.mark.parametrize("cut", [["x", "yz"], ["今日", "は", "よい", "、", "天気"], ["長い" * 9, "'", "."], ["、"], []])
def test_words_that_cannot_be_found_keep_their_order(cut: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def wakati(self, _text: str) -> list[str]:
            return cut

    monkeypatch.setattr(words, "load_nagisa", Other)
    text = "今日は"
    tokens = split(text, "ja")
    assert [token.spoken[0] for token in tokens] == [word for word in cut if word not in {"、", "."}]
    starts = [token.char_start for token in tokens]
    assert starts == sorted(starts)
    assert all(token.text == text[token.char_start : token.char_end] != "" for token in tokens)


def test_words_split_in_the_middle_of_a_character(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def wakati(self, _text: str) -> list[str]:
            return ["1キ", "ロメ", "ート", "ル"]

    monkeypatch.setattr(words, "load_nagisa", Other)
    assert [token.text for token in split("1㌔メートル", "ja")] == ["1㌔", "メ", "ート", "ル"]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "a" * 200_000),
        ("en", "a" + "." * 200_000),
        ("en", "a" + "\u00ad" * 200_000),
        ("en", ("a" + "\u00ad" * 500) * 400),
        ("zh", "我'" * 100_000),
        ("zh", "'\u0301" * 100_000),
        ("ko", "가" * 200_000),
        ("ko", "." * 200_000),
        ("ko", "가나 " * 66_000),
    ],
)
def test_long_text_takes_linear_time(language: str, text: str) -> None:
    split(text, language)  # in quadratic time it would take minutes, and fail by pytest's timeout


def test_split_is_thread_safe() -> None:
    text = _SPEECH["ja"] * 3
    alone = split(text, "ja")
    with ThreadPoolExecutor(4) as pool:
        assert all(found == alone for found in pool.map(lambda _: split(text, "ja"), range(40)))


def test_only_japanese_loads_nagisa_and_float_arithmetic_is_unchanged() -> None:
    code = """
import sys
from aligner_svc.text.model_words import split
split("안녕하세요", "ko"), split("a", "en")
assert not {"qwen_asr", "torch", "soynlp", "nagisa"} & set(sys.modules)
split("今日は", "ja")
assert "nagisa" in sys.modules
assert not {"qwen_asr", "torch", "soynlp"} & set(sys.modules)
assert sys.float_info.min / 2 > 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_korean_without_qwen_asr_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    words.korean_stems.cache_clear()
    monkeypatch.setattr(words, "find_spec", lambda _name: None)
    with pytest.raises(ModuleNotFoundError, match="qwen_asr"):
        split("가나", "ko")
