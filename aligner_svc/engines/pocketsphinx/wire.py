"""Messages between the engine and its workers: JSON headers; samples are sent as raw int16.

Imports little: the parent must not load the models, nor a worker 15 MB of pydantic.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from aligner_svc.domain import WordStatus
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
