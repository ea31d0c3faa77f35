# ruff: noqa: RUF001  curly apostrophes and wide commas are what people write
"""Recordings and transcripts drawn at random, in the 11 languages of Qwen3-ForcedAligner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aligner_svc.domain import SAMPLE_RATE

_WORDS = {
    "zh": "今天 天气 很好 我们 一起 去 公园 散步 吧 北京 大学 3 个 学生 code 图书馆 明年",
    "en": "the state-of-the-art 3.14 can’t don't wizard said Hello and U.S. 1999 quick brown fox over it's naïve",
    "yue": "呢啲 係 咩嘢 我哋 今日 去 飲茶 OK 佢話 冇問題 香港 電車 7 點鐘 返嚟",
    "fr": "l'été dernier j’ai vu l’Hôtel-de-Ville c'était ça aujourd'hui où garçon cœur vingt-deux naïf",
    "de": "die Straße führt über Köln-Ehrenfeld Grüß Gott um 8:30 Uhr geht's schöne Mädchen größer",
    "it": "un po' d'acqua perché l'università dell’Aquila è lì città bella più così 1000 gente",
    "ja": "今日は とても 良い 天気 なので 東京 スカイツリーへ 行きました 私は Pythonで 書いて います 3 時に",
    "ko": "안녕하세요 오늘은 날씨가 정말 좋네요 국립국어원에서 AI기술을 3.14는 파이입니다 학교에 갔어요",
    "pt": "não há informações o avô e a avó à mão guarda-chuva 10,50 tá bom coração três",
    "ru": "съешь же ещё этих мягких французских булок да выпей чаю кто-то ёлка № 5 подъезд",
    "es": "dónde está el niño aquí pingüinos según él 1.000 mañana corazón qué ¿verdad?",
}
_CLOSINGS = ("", "", "", "", ",", ".", "!", " —", "…")
_UNSPACED = {"zh": "，", "yue": "，", "ja": "、"}

LANGUAGES = tuple(sorted(_WORDS))


class Pair(NamedTuple):
    """A recording and a transcript that were never introduced to each other."""

    samples: npt.NDArray[np.int16]
    text: str
    language: str


def audio(chance: np.random.Generator, count: int) -> npt.NDArray[np.int16]:
    """`count` samples of noise, with bursts of three tones in it where speech would have syllables."""
    wave = chance.normal(0, 150, count)
    at = 0
    while at < count:
        length = min(int(chance.uniform(0.04, 0.4) * SAMPLE_RATE), count - at)
        time = np.arange(length) / SAMPLE_RATE
        for pitch in chance.uniform(80, 4_000, 3):
            wave[at : at + length] += chance.uniform(100, 5_000) * np.sin(2 * np.pi * pitch * time) * np.hanning(length)
        at += length + int(chance.uniform(0, 0.2) * SAMPLE_RATE)
    return np.clip(wave, -32_768, 32_767).astype(np.int16)


def transcript(chance: np.random.Generator, language: str, words: int) -> str:
    """About `words` words, with punctuation between them."""
    drawn = chance.choice(_WORDS[language].split(), words)
    if language in _UNSPACED:
        return _UNSPACED[language].join("".join(drawn[first : first + 4]) for first in range(0, words, 4))
    return " ".join(word + chance.choice(_CLOSINGS) for word in drawn)


def pair(chance: np.random.Generator, language: str, count: int, *, words_a_second: float = 2.0) -> Pair:
    """`count` samples, and a transcript of at least one word."""
    words = max(1, round(count / SAMPLE_RATE * words_a_second * chance.uniform(0.2, 1.8)))
    return Pair(audio(chance, count), transcript(chance, language, words), language)


def pairs(seed: int, counts: Sequence[int], *, words_a_second: float = 2.0) -> list[Pair]:
    """One for each number of samples; the languages take turns."""
    chance = np.random.default_rng(seed)
    return [
        pair(chance, LANGUAGES[nth % len(LANGUAGES)], count, words_a_second=words_a_second) for nth, count in enumerate(counts)
    ]


def log_uniform(seed: int, how_many: int, shortest: float, longest: float) -> list[int]:
    """Lengths in samples; as many between 1 and 2 s as between 10 and 20 s. `shortest` and `longest` in seconds."""
    chance = np.random.default_rng(seed)
    seconds = np.exp(chance.uniform(np.log(shortest), np.log(longest), how_many))
    return [int(length * SAMPLE_RATE) for length in seconds]
