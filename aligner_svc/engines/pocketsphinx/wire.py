"""What travels between the engine and its workers: JSON headers, samples as raw int16.

Light on purpose: the parent must not load the models with it, nor a worker 15 MB of pydantic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aligner_svc.domain import WordStatus
from aligner_svc.workers.frames import JsonValue


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """Seconds within the window; `evidence` as in calibration."""

    start: float
    end: float
    confidence: float
    evidence: float
    status: WordStatus


@dataclass(frozen=True, slots=True)
class WindowAnswer:
    """`spans` are the tokens that are final; the next window begins at `resume` seconds of this one.

    `coherence` as in engines.windows.Prefix.
    """

    spans: Sequence[TokenSpan]
    resume: float
    coherence: float = 1.0


class MalformedError(Exception):
    """What the other side sent is not what an honest one would send."""


def encode_request(tokens: Sequence[Sequence[str]], last: bool, complete: bool) -> dict[str, JsonValue]:
    return {"tokens": [list(token) for token in tokens], "last": last, "complete": complete}


def decode_request(header: Mapping[str, JsonValue]) -> tuple[list[list[str]], bool, bool]:
    """Raises MalformedError."""
    tokens, last, complete = header.get("tokens"), header.get("last"), header.get("complete")
    if not isinstance(last, bool) or not isinstance(complete, bool):
        raise MalformedError("last, complete")
    return [[_word(word) for word in _list(token)] for token in _list(tokens)], last, complete


def encode_answer(answer: WindowAnswer) -> dict[str, JsonValue]:
    rows: list[JsonValue] = [[span.start, span.end, span.confidence, span.evidence, span.status.value] for span in answer.spans]
    return {"spans": rows, "resume": answer.resume, "coherence": answer.coherence}


def decode_answer(header: Mapping[str, JsonValue]) -> WindowAnswer:
    """Raises MalformedError."""
    spans = [_span(_list(row)) for row in _list(header.get("spans"))]
    return WindowAnswer(spans, _number(header.get("resume")), _number(header.get("coherence")))


def _span(row: Sequence[JsonValue]) -> TokenSpan:
    if len(row) != 5:
        raise MalformedError("span")
    start, end, confidence, evidence, status = row
    try:
        found = WordStatus(status)
    except ValueError:
        raise MalformedError("status") from None
    return TokenSpan(_number(start), _number(end), _number(confidence), _number(evidence), found)


def _list(value: JsonValue) -> Sequence[JsonValue]:
    if not isinstance(value, list):
        raise MalformedError("list")
    return value


def _word(value: JsonValue) -> str:
    if not isinstance(value, str):
        raise MalformedError("word")
    return value


def _number(value: JsonValue) -> float:
    if not isinstance(value, float | int) or isinstance(value, bool):
        raise MalformedError("number")
    try:
        number = float(value)
    except OverflowError:
        raise MalformedError("number") from None
    if not math.isfinite(number):
        raise MalformedError("number")
    return number
