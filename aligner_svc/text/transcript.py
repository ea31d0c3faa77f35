"""The words of a transcript as it was sent: markup, normalisation form and all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from aligner_client.markup import Kind, Markup, speaker
from aligner_svc.domain import Token
from aligner_svc.text.composed import Composed


def words(transcript: str, split: Callable[[str, str], Sequence[Token]], language: str) -> Sequence[Token]:
    """The words that `split(text, language)` finds in what is to be read of `transcript`, and its marks, in its places and order.

    Raises what `split` does, and InvalidArgumentError (TRANSCRIPT_MARKS_EXCESSIVE).
    """
    markup = Markup.of(transcript)
    composed = Composed.of(markup.text)
    return with_marks(markup, composed.tokens(split(composed.text, language)))


def with_marks(markup: Markup, tokens: Sequence[Token]) -> Sequence[Token]:
    """The words of `markup.text` and the marks, in order, as words of `markup.original`; a word's text is what is read of it."""
    if not markup.changed:
        return tokens
    sent = markup.original
    marks = [
        Token(
            sent[mark.start : mark.end],
            mark.start,
            mark.end,
            (),
            skipped=True,
            speaker=speaker(mark.instead) if mark.kind is Kind.LABEL else "",
        )
        for mark in markup.marks
    ]
    moved = [_moved(markup, token) for token in tokens]
    return sorted([*marks, *moved], key=lambda token: token.char_start)


def _moved(markup: Markup, token: Token) -> Token:
    start, end = markup.span(token.char_start, token.char_end)
    return replace(token, char_start=start, char_end=end)
