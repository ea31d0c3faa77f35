"""From a transcript as a person wrote it to the words an acoustic model listens for."""

from __future__ import annotations

from aligner_svc.domain import Token
from aligner_svc.text import english
from aligner_svc.text.folding import own_letters
from aligner_svc.text.languages import normalise_language
from aligner_svc.text.tokens import split

__all__ = ["normalise_language", "supported_languages", "tokenise"]


def supported_languages() -> frozenset[str]:
    """Primary subtags whose numbers, signs and abbreviations are written out as speech."""
    return frozenset({"en"})


def tokenise(text: str, language: str) -> tuple[Token, ...]:
    """Cut a transcript into the caller's words, in order; an empty tuple: nothing to align.

    `text` is any string, control characters included; time is linear in its length.
    `language` is a primary subtag, as `normalise_language` gives it. In a language that
    `supported_languages` does not name, words are cut at spaces and punctuation and
    `spoken` is the word's own letters and digits in lower case, one word a token.
    Never raises.
    """
    if language == "en":
        pieces = split(text, english.owns_dot, english.ELISIONS)
        readings = english.read(pieces, text)
    else:
        pieces = split(text, _no_dot, frozenset())
        readings = [own_letters(piece.text) for piece in pieces]
    return tuple(
        Token(piece.text, piece.start, piece.end, spoken) for piece, spoken in zip(pieces, readings, strict=True) if spoken
    )


def _no_dot(word: str, following: str) -> bool:
    return False
