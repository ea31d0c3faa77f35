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

from aligner_svc.domain import Phone, Token, WordStatus
from aligner_svc.engines.windows import Prefix
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.workers.frames import JsonValue

T = TypeVar("T")

_AS_SENT, _OWN_TEXT, _SKIPPED, _LABEL = range(4)
"""How a token is read: its text is a range of the transcript, or it is sent, or it is a mark, or one that names a speaker."""


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """Seconds within the window; `evidence` as in calibration. `phones` if they were asked for."""

    start: float
    end: float
    confidence: float
    evidence: float
    status: WordStatus
    phones: tuple[Phone, ...] = ()


class MalformedError(Exception):
    """The other side sent a malformed message."""


def encode_request(
    tokens: Sequence[Sequence[str]], last: bool, complete: bool, *, live: bool = False, phones: bool = False
) -> dict[str, JsonValue]:
    return {"tokens": [list(token) for token in tokens], "last": last, "complete": complete, "live": live, "phones": phones}


def decode_request(header: Mapping[str, JsonValue]) -> tuple[list[list[str]], bool, bool]:
    """Raises MalformedError."""
    tokens = [[_checked(word, str) for word in _checked(token, list)] for token in _checked(header.get("tokens"), list)]
    return tokens, _checked(header.get("last"), bool), _checked(header.get("complete"), bool)


def is_live(header: Mapping[str, JsonValue]) -> bool:
    """Whether the window is as much of the audio as there is so far. Raises MalformedError."""
    return _checked(header.get("live"), bool)


def wants_phones(header: Mapping[str, JsonValue]) -> bool:
    """Raises MalformedError."""
    return _checked(header.get("phones"), bool)


def encode_answer(answer: Prefix[TokenSpan]) -> dict[str, JsonValue]:
    rows: list[JsonValue] = [
        [span.start, span.end, span.confidence, span.evidence, span.status.value, [list(phone) for phone in span.phones]]
        for span in answer.spans
    ]
    return {"spans": rows, "resume": answer.resume, "coverage": answer.coverage}


def decode_answer(header: Mapping[str, JsonValue]) -> Prefix[TokenSpan]:
    """Raises MalformedError."""
    spans = [_span(_checked(row, list)) for row in _checked(header.get("spans"), list)]
    return Prefix(spans, _number(header.get("resume")), _number(header.get("coverage")))


def text_request(language: str) -> dict[str, JsonValue]:
    """Goes with a transcript, to be tokenised."""
    return {"language": language}


def text_language(header: Mapping[str, JsonValue]) -> str | None:
    """The language of a `text_request`; None: it is another request. Raises MalformedError."""
    return _checked(header["language"], str) if "language" in header else None


def encode_refusal(error: InvalidArgumentError) -> dict[str, JsonValue]:
    """The answer to a `text_request` for a transcript that is refused."""
    return {"refused": [error.reason, error.message]}


def encode_tokens(tokens: Sequence[Token], transcript: str) -> tuple[dict[str, JsonValue], bytes]:
    """Four int32 a token (start, end, number of spoken words, how it is read), all spoken words, and the texts that need it.

    No spoken word has a blank and no text but those of marks a line break. Of most tokens the text is a range of the transcript;
    of a speaker's label the name goes with the texts.
    """
    rows = np.array(
        [(token.char_start, token.char_end, len(token.spoken), _way(token, transcript)) for token in tokens], np.int32
    )
    spoken = " ".join(word for token in tokens for word in token.spoken)
    texts = "\n".join(token.speaker or token.text for token in tokens if _way(token, transcript) in {_OWN_TEXT, _LABEL})
    return {"tokens": len(tokens)}, rows.tobytes() + f"{spoken}\n{texts}".encode()


def decode_tokens(header: Mapping[str, JsonValue], payload: memoryview, transcript: str) -> list[Token]:
    """The tokens of `transcript`; 100,000 take 0.4 s. Raises MalformedError, and InvalidArgumentError for `encode_refusal`."""
    if "refused" in header:
        reason, message = (_checked(value, str) for value in _checked(header["refused"], list))
        raise InvalidArgumentError(reason, message, field="config.transcript")
    size = 16 * _checked(header.get("tokens"), int)
    if not 0 <= size <= payload.nbytes:
        raise MalformedError(f"{payload.nbytes} bytes of tokens")
    try:
        all_spoken, _, all_texts = str(payload[size:], "utf-8").partition("\n")
    except UnicodeDecodeError:
        raise MalformedError("words that are not UTF-8") from None
    spoken, texts = iter(all_spoken.split()), iter(all_texts.split("\n"))
    rows = np.frombuffer(payload[:size], dtype=np.int32).reshape(-1, 4).tolist()
    return [
        Token(
            next(texts, "") if way == _OWN_TEXT else transcript[start:end],
            start,
            end,
            tuple(islice(spoken, count)),
            skipped=way in {_SKIPPED, _LABEL},
            speaker=next(texts, "") if way == _LABEL else "",
        )
        for start, end, count, way in rows
    ]


def _way(token: Token, transcript: str) -> int:
    if token.skipped:
        return _LABEL if token.speaker else _SKIPPED
    return _AS_SENT if token.text == transcript[token.char_start : token.char_end] else _OWN_TEXT


def _span(row: Sequence[JsonValue]) -> TokenSpan:
    if len(row) != 6:
        raise MalformedError(f"a span of {len(row)} values")
    start, end, confidence, evidence, status, phones = row
    try:
        found = WordStatus(status)
    except ValueError:
        raise MalformedError("an unknown status") from None
    sounds = tuple(_phone(_checked(phone, list)) for phone in _checked(phones, list))
    return TokenSpan(_number(start), _number(end), _number(confidence), _number(evidence), found, sounds)


def _phone(row: Sequence[JsonValue]) -> Phone:
    if len(row) != 3:
        raise MalformedError(f"a phone of {len(row)} values")
    symbol, start, end = row
    return Phone(_checked(symbol, str), _number(start), _number(end))


def _checked(value: JsonValue, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise MalformedError(f"{type(value).__name__} instead of {kind.__name__}")
    return value


def _number(value: JsonValue) -> float:
    if isinstance(value, float | int) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return float(value)
    raise MalformedError("not a finite number")
