"""Other languages on the embedded engine. No speech in them can be part of the project: an English recording is respelled."""

from __future__ import annotations

import numpy as np

from aligner_client.api.v1 import aligner_pb2 as pb
from tests.kit.recordings import SPEECH, TRANSCRIPT

AS_GERMANS_WRITE = "hie bigänn e konnfjuhst kommplehnt egennst se wissert hu hätt wännischt bihaint se körtn onn se left"
GERMAN = "Der Wasserstand ist zu hoch und das Überlaufventil tropft"


async def align(stub, text: str, language: str) -> pb.AlignResponse:
    return await stub.Align(pb.AlignRequest(config=pb.AlignConfig(transcript=text, language=language), audio=SPEECH))


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


async def test_a_transcript_of_something_else_is_noticed(stub):
    answer = await align(stub, GERMAN, "de")
    assert "TRANSCRIPT_MISMATCH" in codes(answer)
    assert answer.summary.match_score < 0.5


async def test_chinese_is_read_by_a_process_of_its_own(stub):
    answer = await align(stub, "\u6628\u665a\u6211\u6253\u5f00\u524d\u95e8", "zh")
    assert [word.text for word in answer.words] == list("\u6628\u665a\u6211\u6253\u5f00\u524d\u95e8")
    assert codes(answer)[0] == "APPROXIMATE"
