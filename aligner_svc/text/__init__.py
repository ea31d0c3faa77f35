"""Turns a transcript into the words that an acoustic model knows."""

from __future__ import annotations

from aligner_svc.domain import Token
from aligner_svc.text import english
from aligner_svc.text.languages import normalise_language
from aligner_svc.text.tokens import split

__all__ = ["normalise_language", "tokenise"]


def tokenise(text: str, language: str) -> tuple[Token, ...]:
    """Split a transcript into its words, in order; empty if there is nothing to align.

    `text` is any string, control characters included; time is linear in its length. Everything with a letter or digit
    of any script is a word; `spoken` is empty where `language` has no reading for it. Punctuation, symbols and emoji are
    words only where they are spoken ("Tom & Jerry"). `language` is a primary subtag from `normalise_language`.
    Raises ValueError for a language without rules.
    """
    if language != "en":
        raise ValueError(f"no reading rules for {language!r}")
    pieces = split(text, english.owns_dot, english.ELISIONS)
    readings = english.read(pieces, text)
    return tuple(
        Token(piece.text, piece.start, piece.end, spoken)
        for piece, spoken in zip(pieces, readings, strict=True)
        if spoken or any(map(str.isalnum, piece.text))
    )
