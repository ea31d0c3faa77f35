"""The words of an answer: tokens of the transcript and the spans that the engine found for them."""

from __future__ import annotations

from collections.abc import Sequence

from aligner_svc.domain import Token, Word, WordStatus
from aligner_svc.engines.base import EngineResult, Span


def word_of(token: Token, span: Span, speaker: str) -> Word:
    """`speaker`: of the last label."""
    return Word(
        token.text, span.start, span.end, span.confidence, span.status, token.char_start, token.char_end, speaker, span.phones
    )


def words_of(tokens: Sequence[Token], result: EngineResult) -> list[Word]:
    """One word for every token. Those that were not aligned, unreadable or markup, get the end of the word before."""
    spans = iter(result.spans)
    words: list[Word] = []
    at, speaker = 0.0, ""
    for token in tokens:
        speaker = token.speaker or speaker
        absent = WordStatus.SKIPPED if token.skipped else WordStatus.NOT_FOUND
        span = next(spans) if token.spoken else Span(at, at, 0.0, absent)
        words.append(word_of(token, span, speaker))
        at = span.end
    return words
