"""Engine and worker understand each other; what an honest worker would not send is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from aligner_svc.domain import WordStatus
from aligner_svc.engines.pocketsphinx.wire import (
    TokenSpan,
    WindowAnswer,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
)

_NUMBER = st.floats(0, 1e4)
_SPANS = st.lists(st.builds(TokenSpan, _NUMBER, _NUMBER, _NUMBER, _NUMBER, st.sampled_from(WordStatus)), max_size=5)


@settings(derandomize=True, max_examples=50, deadline=None)
@given(_SPANS, _NUMBER)
def test_an_answer_survives_json(spans: list[TokenSpan], resume: float) -> None:
    assert decode_answer(json.loads(json.dumps(encode_answer(WindowAnswer(spans, resume))))) == WindowAnswer(spans, resume)


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.lists(st.lists(st.text("ab'", min_size=1), min_size=1, max_size=3), max_size=4), st.booleans())
def test_a_request_survives_json(tokens: list[list[str]], final: bool) -> None:
    header = json.loads(json.dumps(encode_request([tuple(token) for token in tokens], final)))
    assert decode_request(header) == (tokens, final)


ROW = [0.1, 0.2, 0.9, 0.9, "ALIGNED"]


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"spans": []},
        {"resume": 1.0},
        {"spans": None, "resume": 1.0},
        {"spans": [ROW], "resume": None},
        {"spans": [ROW], "resume": [1.0]},
        {"spans": [ROW[:4]], "resume": 1.0},
        {"spans": [[*ROW, 1]], "resume": 1.0},
        {"spans": [[*ROW[:4], "GUESSED"]], "resume": 1.0},
        {"spans": [["soon", *ROW[1:]]], "resume": 1.0},
        {"spans": [{"start": 0.1}], "resume": 1.0},
        {"spans": "ALIGNED", "resume": 1.0},
    ],
)
def test_a_malformed_answer_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises((ValidationError, KeyError)):
        decode_answer(header)


@pytest.mark.parametrize("tokens", [None, "word", ["word"], [[1]], [None]])
def test_a_malformed_request_is_refused(tokens: Any) -> None:
    with pytest.raises(ValidationError):
        decode_request({"tokens": tokens, "final": True})
