"""Other languages on the embedded engine. No speech in them can be part of the project: an English recording is respelled."""

# ruff: noqa: RUF001  letters of IPA look like Latin ones
from __future__ import annotations

import grpc
import numpy as np
import pytest

from aligner_client.api.v1 import aligner_pb2 as pb
from tests.kit.recordings import SPEECH, TRANSCRIPT

AS_GERMANS_WRITE = "hie bigänn e konnfjuhst kommplehnt egennst se wissert hu hätt wännischt bihaint se körtn onn se left"
GERMAN = "Der Wasserstand ist zu hoch und das Überlaufventil tropft"


async def align(stub, text: str, language: str, **more: object) -> pb.AlignResponse:
    return await stub.Align(pb.AlignRequest(config=pb.AlignConfig(transcript=text, language=language, **more), audio=SPEECH))


def codes(answer: pb.AlignResponse) -> list[str]:
    return [warning.code for warning in answer.summary.warnings]


async def test_words_are_where_they_were_said_and_the_answer_says_that_it_is_approximate(stub):
    english, german = await align(stub, TRANSCRIPT, "en"), await align(stub, AS_GERMANS_WRITE, "de")
    assert len(german.words) == len(english.words)
    pairs = zip(german.words, english.words, strict=True)
    off = [abs(difference) for a, b in pairs for difference in (a.start_ms - b.start_ms, a.end_ms - b.end_ms)]
    assert np.median(off) <= 40
    assert codes(german) == ["APPROXIMATE"]
    assert (german.summary.language, codes(english)) == ("de", [])


async def test_sounds_are_told_in_ipa_and_given_in_it(stub):
    text = AS_GERMANS_WRITE.replace("wissert", "Xq")
    plain = await align(stub, AS_GERMANS_WRITE, "de")
    answer = await align(stub, text, "de", detail=pb.DETAIL_PHONES, pronunciations={"xq": "v ɪ s ɐ t"})
    assert answer.summary.phone_set == "IPA"
    assert [(a.start_ms, a.end_ms) for a in answer.words] == [(a.start_ms, a.end_ms) for a in plain.words]
    said = {word.text: [phone.symbol for phone in word.phones] for word in answer.words}
    assert said["Xq"] == ["v", "ɪ", "s", "ɐ", "t"]
    assert said["konnfjuhst"] == ["k", "ɔ", "n", "f", "j", "uː", "s", "t"]
    for word in answer.words:
        edges = [word.start_ms, *[phone.end_ms for phone in word.phones]]
        assert [phone.start_ms for phone in word.phones] == edges[:-1]
        assert edges == sorted(edges)
        assert edges[-1] == word.end_ms
    with pytest.raises(grpc.aio.AioRpcError, match="'IH1' is no symbol of IPA"):
        await align(stub, text, "de", pronunciations={"xq": "v IH1 s"})


async def test_a_transcript_of_something_else_is_noticed(stub):
    answer = await align(stub, GERMAN, "de")
    assert "TRANSCRIPT_MISMATCH" in codes(answer)
    assert answer.summary.match_score < 0.5


async def test_chinese_is_read_by_a_process_of_its_own(stub):
    answer = await align(stub, "\u6628\u665a\u6211\u6253\u5f00\u524d\u95e8", "zh")
    assert [word.text for word in answer.words] == list("\u6628\u665a\u6211\u6253\u5f00\u524d\u95e8")
    assert codes(answer)[0] == "APPROXIMATE"
