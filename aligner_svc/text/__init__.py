"""From a transcript as a person wrote it to the words an acoustic model listens for."""

from __future__ import annotations

from aligner_svc.domain import Token
from aligner_svc.text import english
from aligner_svc.text.languages import normalise_language
from aligner_svc.text.tokens import split

__all__ = ["normalise_language", "tokenise"]


def tokenise(text: str, language: str) -> tuple[Token, ...]:
    """Cut a transcript into the caller's words, in order; an empty tuple: nothing to align.

    `text` is any string, control characters included; time is linear in its length.
    Whatever holds a letter or a digit, of any script, is a word and comes back; `spoken`
    is empty where `language` has no reading for it. Punctuation, symbols and emoji are
    words only where they are said ("Tom & Jerry").
    `language` is a primary subtag, as `normalise_language` gives it; raises ValueError for
    one that there are no rules for.
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
