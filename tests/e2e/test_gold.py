"""Odd files from the field, and hand-marked speech: what is not part of the project and cannot be."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import numpy as np
import pytest

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.engines.pocketsphinx.languages import table
from tests import PROJECT
from tests.kit.refusals import refusal

GOLD = PROJECT.parent / "shared" / "gold"
AWKWARD = GOLD / "awkward"
SERVED = {"en", *table.served("measured")}
MEAN_ERROR_MS = 30

pytestmark = pytest.mark.skipif(not GOLD.is_dir(), reason="needs the gold recordings, which are not part of the repository")

_MANIFEST = AWKWARD / "manifest.json"
FILES: list[dict[str, Any]] = json.loads(_MANIFEST.read_text(encoding="utf-8")) if _MANIFEST.exists() else []
EXPECTED = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}


def awkward(entries: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", entries or [{}], ids=lambda entry: entry.get("file", "none"))


def audio(entry: dict[str, Any]) -> bytes:
    return (AWKWARD / entry["file"]).read_bytes()


async def align(stub, data: bytes, text: str, language: str) -> pb.AlignResponse:
    return await stub.Align(pb.AlignRequest(config=pb.AlignConfig(transcript=text, language=language), audio=data))


@awkward(FILES)
async def test_words_or_a_clear_refusal(stub, entry):
    """Taken for English, so that the audio is what is looked at; one word keeps long music cheap."""
    text = entry.get("text", "hello") if entry.get("language") == "en" else "hello"
    try:
        response = await align(stub, audio(entry), text, "en")
    except grpc.RpcError as error:
        reported = refusal(error)
        assert (reported.code, reported.domain) == (grpc.StatusCode.INVALID_ARGUMENT, "aligner")
        assert reported.reason.startswith(("AUDIO_", "CODEC_", "CHANNELS_"))
        return
    assert [word.text for word in response.words] == text.split()
    at = 0
    for word in response.words:
        assert at <= word.start_ms <= word.end_ms <= response.summary.audio_ms
        at = word.end_ms


@awkward([entry for entry in FILES if entry.get("language") == "en" and entry.get("text")])
async def test_english_speech_is_placed(stub, entry):
    words = (await align(stub, audio(entry), entry["text"], "en")).words
    placed = [word for word in words if word.status != pb.WORD_STATUS_NOT_FOUND]
    assert len(placed) >= 0.8 * len(words)


async def test_other_languages_are_refused_as_what_they_are(stub):
    for entry in FILES:
        if entry.get("language", "en") not in SERVED:
            with pytest.raises(grpc.RpcError) as error:
                await align(stub, audio(entry), entry.get("text", "text"), entry["language"])
            reported = refusal(error.value)
            assert reported.code in EXPECTED
            assert reported.reason in {"LANGUAGE_UNSUPPORTED", "LANGUAGE_UNKNOWN"}


async def test_boundaries_are_where_a_person_marked_them(stub):
    marked = sorted((GOLD / "timit").glob("*.json"))[:8]
    golds = [json.loads(path.read_text(encoding="utf-8")) for path in marked]
    audios = [path.with_suffix(".wav").read_bytes() for path in marked]
    responses = await asyncio.gather(*(align(stub, data, gold["text"], "en") for gold, data in zip(golds, audios, strict=True)))
    errors = [error for response, gold in zip(responses, golds, strict=True) for error in _errors(response, gold)]
    assert len(errors) > 100
    assert np.mean(errors) < MEAN_ERROR_MS


def _errors(response: pb.AlignResponse, gold: dict[str, Any]) -> list[float]:
    """How far each start and end is off, in milliseconds."""
    return [
        abs(found - 1000 * expected)
        for word, mark in zip(response.words, gold["words"], strict=True)
        for found, expected in ((word.start_ms, mark["start"]), (word.end_ms, mark["end"]))
    ]
