"""The words of transcripts in languages other than English, and how they are said."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from functools import lru_cache
from typing import Final

from aligner_svc.domain import Token
from aligner_svc.text.model_words import split, split_at_spaces
from aligner_svc.text.spoken import han, japanese
from aligner_svc.text.spoken.numbers import say

WITH_READER: Final = frozenset({"zh", "yue", "ja"})
"""Languages whose spelling does not tell the sounds: a dictionary does, which takes 50 to 200 MB."""
_SCRIPTS: Final = {"el": {"GREEK", "LATIN"}, "ru": {"CYRILLIC", "LATIN"}, "ko": {"HANGUL", "LATIN"}}
_LATIN: Final = frozenset({"LATIN"})
_LATIN_LANGUAGES: Final = frozenset({"de", "es", "fr", "it", "pt", "nl", "pl", "sv", "da", "no", "fi", "tr", "cs", "ro", "hu"})


def tokenise(text: str, language: str) -> tuple[Token, ...]:
    """Split a transcript into the words that the Qwen engine has, each with what is said: lower-case words without blanks.

    Nothing is `spoken` of a word in a script that `language` does not use.
    """
    if language == "ja":
        return japanese.tokenise(text)
    if language in WITH_READER:
        return han.tokenise(text, language)
    return tuple(replace(token, spoken=_said(text, token, language)) for token in _split(text, language))


def _split(text: str, language: str) -> tuple[Token, ...]:
    if language != "ko":
        return split_at_spaces(text)
    try:
        return split(text, language)
    except ModuleNotFoundError:  # the dictionary of stems comes with qwen-asr
        return split_at_spaces(text)


def _said(text: str, token: Token, language: str) -> tuple[str, ...]:
    scripts = _SCRIPTS.get(language) or (_LATIN if language in _LATIN_LANGUAGES else None)
    if scripts and not all(_script(char) in scripts for char in token.text if char.isalpha()):
        return ()
    return say(text, token.char_start, token.char_end, language)


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    """By the first word of its name, which is that of its script for all but a few letters, taken for Latin ones (ª, º, µ)."""
    name = unicodedata.name(unicodedata.normalize("NFKC", letter)[0], "").split(" ")[0]
    return "LATIN" if name in {"FEMININE", "MASCULINE", "MODIFIER"} else name
