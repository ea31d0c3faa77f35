"""The words of a transcript as it was sent: markup, normalisation form and all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aligner_svc.domain import Token
from aligner_svc.markup import Markup
from aligner_svc.text.composed import Composed


def words(transcript: str, split: Callable[[str, str], Sequence[Token]], language: str) -> Sequence[Token]:
    """The words that `split(text, language)` finds in what is to be read of `transcript`, and its marks, in its places and order.

    Raises what `split` does, and InvalidArgumentError (TRANSCRIPT_MARKS_EXCESSIVE).
    """
    markup = Markup.of(transcript)
    composed = Composed.of(markup.text)
    return markup.tokens(composed.tokens(split(composed.text, language)))
