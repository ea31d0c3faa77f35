"""What travels between the engine and its workers: JSON headers, samples as raw int16.

Light on purpose: the parent imports it and must not load the models with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from aligner_svc.domain import WordStatus
from aligner_svc.workers import JsonValue


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
    """`spans` are the tokens that are final; the next window begins at `resume` seconds of this one."""

    spans: Sequence[TokenSpan]
    resume: float


_Row = tuple[float, float, float, float, WordStatus]
_ROWS = TypeAdapter(list[_Row])
_TOKENS = TypeAdapter(list[list[str]])
_SECONDS = TypeAdapter(float)


def encode_request(tokens: Sequence[Sequence[str]], final: bool) -> dict[str, JsonValue]:
    return {"tokens": [list(token) for token in tokens], "final": final}


def decode_request(header: dict[str, JsonValue]) -> tuple[list[list[str]], bool]:
    return _TOKENS.validate_python(header["tokens"]), header["final"] is True


def encode_answer(answer: WindowAnswer) -> dict[str, JsonValue]:
    rows: list[JsonValue] = [[span.start, span.end, span.confidence, span.evidence, span.status.value] for span in answer.spans]
    return {"spans": rows, "resume": answer.resume}


def decode_answer(header: dict[str, JsonValue]) -> WindowAnswer:
    """Raises pydantic.ValidationError for anything an honest worker would not send."""
    return WindowAnswer(
        [TokenSpan(*row) for row in _ROWS.validate_python(header["spans"])], _SECONDS.validate_python(header["resume"])
    )
