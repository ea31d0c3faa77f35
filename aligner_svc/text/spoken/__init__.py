"""The words of transcripts in languages other than English, and how they are said."""

from __future__ import annotations

from dataclasses import replace

from aligner_svc.domain import Token
from aligner_svc.text.model_words import split_at_spaces
from aligner_svc.text.spoken.numbers import say


def tokenise(text: str, language: str) -> tuple[Token, ...]:
    """Split a transcript into the words that the Qwen engine has, each with what is said: lower-case words without blanks."""
    tokens = split_at_spaces(text)
    return tuple(replace(token, spoken=say(text, token.char_start, token.char_end, language)) for token in tokens)
