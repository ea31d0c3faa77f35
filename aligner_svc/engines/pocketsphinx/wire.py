"""Messages between the engine and its workers: JSON headers; samples are sent as raw int16, transcripts as UTF-8.

Imports little: the parent must not load the models, nor a worker 15 MB of pydantic.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np

from aligner_svc.domain import Token, WordStatus
from aligner_svc.engines.windows import Prefix
from aligner_svc.workers.frames import JsonValue

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """Seconds within the window; `evidence` as in calibration."""

    start: float
    end: float
    confidence: float
    evidence: float
    status: WordStatus


class MalformedError(Exception):
    """The other side sent a malformed message."""


def encode_request(tokens: Sequence[Sequence[str]], last: bool, complete: bool) -> dict[str, JsonValue]:
    return {"tokens": [list(token) for token in tokens], "last": last, "complete": complete}


def decode_request(header: Mapping[str, JsonValue]) -> tuple[list[list[str]], bool, bool]:
    """Raises MalformedError."""
    tokens = [[_checked(word, str) for word in _checked(token, list)] for token in _checked(header.get("tokens"), list)]
    return tokens, _checked(header.get("last"), bool), _checked(header.get("complete"), bool)


def encode_answer(answer: Prefix[TokenSpan]) -> dict[str, JsonValue]:
    rows: list[JsonValue] = [[span.start, span.end, span.confidence, span.evidence, span.status.value] for span in answer.spans]
    return {"spans": rows, "resume": answer.resume, "coherence": answer.coherence}


def decode_answer(header: Mapping[str, JsonValue]) -> Prefix[TokenSpan]:
    """Raises MalformedError."""
    spans = [_span(_checked(row, list)) for row in _checked(header.get("spans"), list)]
    return Prefix(spans, _number(header.get("resume")), _number(header.get("coherence")))


def text_request(language: str) -> dict[str, JsonValue]:
    """Goes with a transcript, to be tokenised."""
    return {"language": language}


def text_language(header: Mapping[str, JsonValue]) -> str | None:
    """The language of a `text_request`; None: it is another request. Raises MalformedError."""
    return _checked(header["language"], str) if "language" in header else None


def encode_tokens(tokens: Sequence[Token]) -> tuple[dict[str, JsonValue], bytes]:
    """Three int32 a token (start, end, number of spoken words), then all spoken words, of which none has a blank."""
    rows = np.array([(token.char_start, token.char_end, len(token.spoken)) for token in tokens], dtype=np.int32)
    words = " ".join(word for token in tokens for word in token.spoken)
    return {"tokens": len(tokens)}, rows.tobytes() + words.encode()


def decode_tokens(header: Mapping[str, JsonValue], payload: memoryview, transcript: str) -> list[Token]:
    """The tokens of `transcript`; 100,000 take 0.4 s. Raises MalformedError."""
    size = 12 * _checked(header.get("tokens"), int)
    if not 0 <= size <= payload.nbytes:
        raise MalformedError(f"{payload.nbytes} bytes of tokens")
    try:
        words = iter(str(payload[size:], "utf-8").split())
    except UnicodeDecodeError:
        raise MalformedError("words that are not UTF-8") from None
    rows = np.frombuffer(payload[:size], dtype=np.int32).reshape(-1, 3).tolist()
    return [Token(transcript[start:end], start, end, tuple(islice(words, count))) for start, end, count in rows]


def _span(row: Sequence[JsonValue]) -> TokenSpan:
    if len(row) != 5:
        raise MalformedError(f"a span of {len(row)} values")
    start, end, confidence, evidence, status = row
    try:
        found = WordStatus(status)
    except ValueError:
        raise MalformedError("an unknown status") from None
    return TokenSpan(_number(start), _number(end), _number(confidence), _number(evidence), found)


def _checked(value: JsonValue, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise MalformedError(f"{type(value).__name__} instead of {kind.__name__}")
    return value


def _number(value: JsonValue) -> float:
    if isinstance(value, float | int) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return float(value)
    raise MalformedError("not a finite number")
