"""Messages survive encoding and decoding; malformed ones are refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aligner_svc.domain import WordStatus
from aligner_svc.engines.pocketsphinx.wire import (
    MalformedError,
    TokenSpan,
    decode_answer,
    decode_request,
    decode_tokens,
    encode_answer,
    encode_refusal,
    encode_request,
    encode_tokens,
)
from aligner_svc.engines.windows import Prefix
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.text import tokenise
from aligner_svc.text.transcript import words

_NUMBER = st.floats(0, 1e4)
_SPANS = st.lists(st.builds(TokenSpan, _NUMBER, _NUMBER, _NUMBER, _NUMBER, st.sampled_from(WordStatus)), max_size=5)


@settings(max_examples=50)
@given(_SPANS, _NUMBER, _NUMBER)
def test_an_answer_survives_json(spans: list[TokenSpan], resume: float, coverage: float) -> None:
    given = Prefix(spans, resume, coverage)
    assert decode_answer(json.loads(json.dumps(encode_answer(given)))) == given


@settings(max_examples=50)
@given(st.lists(st.lists(st.text("ab'", min_size=1), min_size=1, max_size=3), max_size=4), st.booleans(), st.booleans())
def test_a_request_survives_json(tokens: list[list[str]], last: bool, complete: bool) -> None:
    header = json.loads(json.dumps(encode_request([tuple(token) for token in tokens], last, complete)))
    assert decode_request(header) == (tokens, last, complete)


ROW = [0.1, 0.2, 0.9, 0.9, "ALIGNED"]


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"spans": []},
        {"resume": 1.0, "coverage": 1.0},
        {"spans": [ROW], "resume": 1.0},
        {"spans": None, "resume": 1.0, "coverage": 1.0},
        {"spans": [ROW], "resume": None, "coverage": 1.0},
        {"spans": [ROW], "resume": [1.0], "coverage": 1.0},
        {"spans": [ROW[:4]], "resume": 1.0, "coverage": 1.0},
        {"spans": [[*ROW, 1]], "resume": 1.0, "coverage": 1.0},
        {"spans": [[*ROW[:4], "GUESSED"]], "resume": 1.0, "coverage": 1.0},
        {"spans": [["soon", *ROW[1:]]], "resume": 1.0, "coverage": 1.0},
        {"spans": [{"start": 0.1}], "resume": 1.0, "coverage": 1.0},
        {"spans": "ALIGNED", "resume": 1.0, "coverage": 1.0},
        {"spans": [[*ROW[:4], ["ALIGNED"]]], "resume": 1.0, "coverage": 1.0},
        {"spans": [[True, *ROW[1:]]], "resume": 1.0, "coverage": 1.0},
        {"spans": [ROW], "resume": math.nan, "coverage": 1.0},
        {"spans": [ROW], "resume": math.inf, "coverage": 1.0},
        {"spans": [ROW], "resume": 10**400, "coverage": 1.0},
        *[
            {"spans": [[*ROW[:place], bad, *ROW[place + 1 :]]], "resume": 1.0, "coverage": 1.0}
            for place in range(4)
            for bad in (math.nan, -math.inf)
        ],
    ],
)
def test_a_malformed_answer_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        decode_answer(json.loads(json.dumps(header)))


@pytest.mark.parametrize("tokens", [None, "word", ["word"], [[1]], [None]])
def test_a_malformed_request_is_refused(tokens: Any) -> None:
    with pytest.raises(MalformedError):
        decode_request({"tokens": tokens, "last": True, "complete": True})


@pytest.mark.parametrize("key", ["tokens", "last", "complete"])
def test_a_request_with_a_part_missing_is_refused(key: str) -> None:
    header = encode_request([["a"]], last=False, complete=False)
    del header[key]
    with pytest.raises(MalformedError):
        decode_request(header)


@pytest.mark.parametrize("key", ["last", "complete"])
@pytest.mark.parametrize("value", [None, "perhaps", 2, math.nan, []])
def test_a_request_without_a_boolean_is_refused(key: str, value: Any) -> None:
    with pytest.raises(MalformedError):
        decode_request({**encode_request([["a"]], last=True, complete=True), key: value})


@example("MARY: so it is 5%\n>> JOHN (sighing): [Applause] no")
@given(st.text(alphabet="ab 5%$1,.-/'é\u0301ﷺ한¼[]<>&#39;:\n", max_size=60))
def test_tokens_survive_the_way_back_from_a_worker(text) -> None:
    tokens = list(words(text, tokenise, "en"))
    header, payload = encode_tokens(tokens, text)
    assert decode_tokens(header, memoryview(payload), text) == tokens


def test_a_refused_transcript_survives_the_way_back_from_a_worker() -> None:
    text = "<b>\u0301</b>" * 40
    with pytest.raises(InvalidArgumentError) as there:
        words(text, tokenise, "en")
    with pytest.raises(InvalidArgumentError) as here:
        decode_tokens(encode_refusal(there.value), memoryview(b""), text)
    assert (here.value.reason, here.value.message) == ("TRANSCRIPT_MARKS_EXCESSIVE", there.value.message)
    assert here.value.violations == there.value.violations


@pytest.mark.parametrize(
    ("header", "payload"), [({}, b""), ({"tokens": -1}, b""), ({"tokens": 1}, b""), ({"tokens": 0}, b"\xff")]
)
def test_malformed_tokens_are_refused(header, payload) -> None:
    with pytest.raises(MalformedError):
        decode_tokens(header, memoryview(payload), "")
