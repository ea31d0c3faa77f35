"""JSON has all fields, CTM what sclite requires."""

from __future__ import annotations

import json

import pytest

from aligner_client.formats import Format, render
from aligner_svc.domain import Alignment, Stretch, Timing, Warning, Word, WordStatus

_WORDS = (
    Word("Café", 0.12345, 0.5, 0.98765, WordStatus.ALIGNED, 0, 4),
    Word('"x"', 0.5, 0.75, 0.5, WordStatus.REPAIRED, 5, 8),
    Word("gone", 0.75, 0.75, 0.0, WordStatus.NOT_FOUND, 9, 13),
)
_ALIGNMENT = Alignment(
    words=_WORDS,
    audio_seconds=1.23456,
    engine="pocketsphinx-5.1.1",
    language="en",
    match_score=0.87654,
    warnings=(Warning("LOW_MATCH", "Check the transcript."),),
    timing=Timing(queue=0.0011, decode=0.0022, align=0.0333, total=0.04),
    unaligned=(Stretch(0.9, 1.23456),),
)
_EMPTY = Alignment((), 0.0, "e", "en", 0.0)


def test_json_has_every_field() -> None:
    assert json.loads(render(_ALIGNMENT, Format.JSON)) == {
        "words": [
            {
                "text": "Café",
                "start": 0.123,
                "end": 0.5,
                "confidence": 0.988,
                "status": "ALIGNED",
                "char_start": 0,
                "char_end": 4,
            },
            {"text": '"x"', "start": 0.5, "end": 0.75, "confidence": 0.5, "status": "REPAIRED", "char_start": 5, "char_end": 8},
            {
                "text": "gone",
                "start": 0.75,
                "end": 0.75,
                "confidence": 0.0,
                "status": "NOT_FOUND",
                "char_start": 9,
                "char_end": 13,
            },
        ],
        "summary": {
            "audio_seconds": 1.235,
            "audio_start": 0.0,
            "engine": "pocketsphinx-5.1.1",
            "language": "en",
            "match_score": 0.877,
            "unaligned": [{"start": 0.9, "end": 1.235}],
            "warnings": [{"code": "LOW_MATCH", "message": "Check the transcript."}],
            "timing": {"queue": 0.001, "decode": 0.002, "scan": 0.0, "align": 0.033, "total": 0.04},
        },
    }


def test_json_keeps_letters_and_the_order_of_keys() -> None:
    text = render(_ALIGNMENT, Format.JSON)
    assert "Café" in text
    assert text.endswith("}\n")
    assert list(json.loads(text)["words"][0]) == ["text", "start", "end", "confidence", "status", "char_start", "char_end"]


def test_nan_is_an_error_in_json() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        render(Alignment((), float("nan"), "e", "en", 0.0), Format.JSON)


def test_json_without_words() -> None:
    assert json.loads(render(_EMPTY, Format.JSON))["words"] == []


def test_ctm_leaves_out_what_was_not_found() -> None:
    assert render(_ALIGNMENT, Format.CTM, recording="talk") == 'talk 1 0.123 0.377 Café 0.988\ntalk 1 0.500 0.250 "x" 0.500\n'


def test_ctm_is_sorted_and_has_six_columns() -> None:
    words = (
        Word("b", 1.0, 1.5, 1.0, WordStatus.ALIGNED, 0, 1),
        Word("two words", 0.5, 0.4, 1.0, WordStatus.ALIGNED, 2, 11),
    )
    lines = render(Alignment(words, 2.0, "e", "en", 1.0), Format.CTM, recording="my talk").splitlines()
    assert [line.split(" ") for line in lines] == [
        ["my_talk", "1", "0.500", "0.000", "two_words", "1.000"],
        ["my_talk", "1", "1.000", "0.500", "b", "1.000"],
    ]
    assert render(_EMPTY, Format.CTM) == ""
