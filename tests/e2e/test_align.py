"""Align: one message in, every word of the transcript out, whatever the recording is wrapped in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf import json_format

from aligner_client.api.v1 import aligner_pb2 as pb
from tests.kit import recordings
from tests.kit.recordings import SPEECH, TRANSCRIPT, WORDS, encode, mulaw, samples
from tests.kit.refusals import refusal

AUDIO_MS = round(len(samples()) / 16)
TOLERANCE_MS = 40

FILES: dict[str, Callable[[], bytes]] = {
    "wav": lambda: encode("wav", "pcm_s16le"),
    "wav 24 bit, 48 kHz, stereo": lambda: encode("wav", "pcm_s24le", rate=48_000, layout="stereo"),
    "wav mu-law": lambda: encode("wav", "pcm_mulaw"),
    "flac 44.1 kHz": lambda: encode("flac", "flac", rate=44_100),
    "mp3": lambda: encode("mp3", "libmp3lame", rate=44_100),
    "ogg opus": lambda: encode("ogg", "libopus", rate=48_000),
    "m4a": lambda: encode("ipod", "aac", rate=44_100),
    "webm": lambda: encode("webm", "libopus", rate=48_000),
    "aiff": lambda: encode("aiff", "pcm_s16be", rate=22_050),
}

HEADERLESS: dict[str, tuple[pb.AudioEncoding, int, int, Callable[[], bytes]]] = {
    "LINEAR16": (pb.AUDIO_ENCODING_LINEAR16, 16_000, 0, lambda: samples().tobytes()),
    "LINEAR16 44.1 kHz, 2 channels": (
        pb.AUDIO_ENCODING_LINEAR16, 44_100, 2, lambda: np.repeat(samples(44_100), 2).tobytes(),
    ),
    "FLOAT32": (pb.AUDIO_ENCODING_FLOAT32, 16_000, 1, lambda: (samples() / np.float32(32768)).astype("<f4").tobytes()),
    "MULAW": (pb.AUDIO_ENCODING_MULAW, 16_000, 1, lambda: mulaw(samples())),
}  # fmt: skip


def config(transcript: str = TRANSCRIPT, **rest: int) -> pb.AlignConfig:
    return pb.AlignConfig(transcript=transcript, language="en", **rest)


@pytest.fixture(scope="module")
def answers() -> dict[str, pb.AlignResponse]:
    """Kept from one test to the next: the sample alone takes most of a second."""
    return {}


async def the_answer(stub, answers) -> pb.AlignResponse:
    """Of the recording as it is shipped."""
    if "sample" not in answers:
        answers["sample"] = await stub.Align(pb.AlignRequest(config=config(), audio=SPEECH))
    return answers["sample"]


def check_order(response: pb.AlignResponse) -> None:
    """Starts and ends never go back, no word is turned around, nothing lies outside the audio."""
    at = 0
    for word in response.words:
        assert at <= word.start_ms <= word.end_ms <= response.summary.audio_ms
        at = word.end_ms


async def test_every_word_comes_back_in_the_callers_spelling(stub, answers):
    words = (await the_answer(stub, answers)).words
    assert [word.text for word in words] == list(WORDS)
    assert [TRANSCRIPT[word.char_start : word.char_end] for word in words] == list(WORDS)
    assert all(word.status == pb.WORD_STATUS_ALIGNED for word in words)
    assert all(0 < word.confidence <= 1 for word in words)
    assert all(word.start_ms < word.end_ms for word in words)


async def test_times_are_in_order_and_inside_the_audio(stub, answers):
    check_order(await the_answer(stub, answers))


async def test_the_summary_says_what_was_done(stub, answers):
    summary = (await the_answer(stub, answers)).summary
    assert summary.audio_ms == AUDIO_MS
    assert summary.engine.startswith("pocketsphinx-")
    assert summary.language == "en"
    assert 0.5 < summary.match_score <= 1
    assert not summary.warnings
    timing = summary.timing
    assert timing.align_ms > 0
    assert timing.total_ms >= max(timing.queue_ms, timing.decode_ms, timing.align_ms)


async def test_a_match_worse_than_the_caller_asked_for_is_a_refusal(stub):
    wrong = "quarterly earnings exceeded every forecast while shipping costs remained fairly stable"
    answer = await stub.Align(pb.AlignRequest(config=config(wrong), audio=SPEECH))
    assert sum(span.end_ms - span.start_ms for span in answer.summary.unaligned) > AUDIO_MS / 2
    strict = config(wrong)
    strict.min_match_score = 0.5
    with pytest.raises(grpc.RpcError) as error:
        await stub.Align(pb.AlignRequest(config=strict, audio=SPEECH))
    reported = refusal(error.value)
    assert (reported.code, reported.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MATCH_SCORE_TOO_LOW")
    right = config(TRANSCRIPT)
    right.min_match_score = 0.5
    assert not (await stub.Align(pb.AlignRequest(config=right, audio=SPEECH))).summary.unaligned


async def test_offsets_count_code_points_of_the_text_as_it_was_sent(stub):
    text = (
        f"  \N{FACE WITH TEARS OF JOY}\N{FACE WITH TEARS OF JOY} “{TRANSCRIPT.replace(' ', chr(10) + chr(9))}” \N{THUMBS UP SIGN}"
    )
    response = await stub.Align(pb.AlignRequest(config=config(text), audio=SPEECH))
    assert [word.text for word in response.words] == list(WORDS)
    assert [text[word.char_start : word.char_end] for word in response.words] == list(WORDS)


async def test_markup_is_skipped_and_costs_its_neighbours_nothing(stub, answers):
    first, second, *rest = TRANSCRIPT.split()
    text = f"[laughter] JOHN: <i>{first}</i> (sighs) &#{ord(second[0])};{second[1:]}[1] {' '.join(rest)} [MUSIC PLAYING]"
    response = await stub.Align(pb.AlignRequest(config=config(text), audio=SPEECH))
    skipped = [word for word in response.words if word.status == pb.WORD_STATUS_SKIPPED]
    assert [word.text for word in skipped] == ["[laughter]", "JOHN:", "(sighs)", "[1]", "[MUSIC PLAYING]"]
    assert [text[word.char_start : word.char_end] for word in skipped] == [word.text for word in skipped]
    assert [(word.start_ms, word.end_ms, word.confidence) for word in skipped[:2]] == [(0, 0, 0)] * 2
    before = [response.words[list(response.words).index(word) - 1].end_ms for word in skipped[2:]]
    assert [(word.start_ms, word.end_ms) for word in skipped[2:]] == [(end, end) for end in before]
    plain = await the_answer(stub, answers)
    said = [word for word in response.words if word.status != pb.WORD_STATUS_SKIPPED]
    assert [(word.text, word.start_ms, word.end_ms, word.status) for word in said] == [
        (word.text, word.start_ms, word.end_ms, word.status) for word in plain.words
    ]
    assert response.summary.match_score == plain.summary.match_score
    assert not response.summary.warnings


async def test_a_region_is_accepted(stub, answers):
    tagged = pb.AlignConfig(transcript=TRANSCRIPT, language="en-GB")
    response = await stub.Align(pb.AlignRequest(config=tagged, audio=SPEECH))
    assert response.words == (await the_answer(stub, answers)).words
    assert response.summary.language == "en"


def check_same(response: pb.AlignResponse, expected: pb.AlignResponse) -> None:
    assert [word.text for word in response.words] == list(WORDS)
    check_order(response)
    pairs = zip(response.words, expected.words, strict=True)
    apart = [max(abs(one.start_ms - two.start_ms), abs(one.end_ms - two.end_ms)) for one, two in pairs]
    assert max(apart) <= TOLERANCE_MS, dict(zip(WORDS, apart, strict=False))
    assert abs(response.summary.audio_ms - AUDIO_MS) <= TOLERANCE_MS
    assert not response.summary.warnings


@pytest.mark.parametrize("name", FILES)
async def test_the_answer_does_not_depend_on_the_container(stub, answers, name):
    response = await stub.Align(pb.AlignRequest(config=config(), audio=FILES[name]()))
    check_same(response, await the_answer(stub, answers))


@pytest.mark.parametrize("name", HEADERLESS)
async def test_nor_on_there_being_none(stub, answers, name):
    encoding, rate, channels, audio = HEADERLESS[name]
    asked = config(encoding=encoding, sample_rate_hz=rate, channels=channels)
    check_same(await stub.Align(pb.AlignRequest(config=asked, audio=audio())), await the_answer(stub, answers))


async def test_six_calls_at_once_get_what_each_gets_alone(stub, answers):
    half = " ".join(TRANSCRIPT.split()[:9])
    requests = [
        pb.AlignRequest(config=config(), audio=SPEECH),
        pb.AlignRequest(config=config(half), audio=recordings.wav(samples()[: len(samples()) // 2])),
        pb.AlignRequest(config=config("something else entirely"), audio=SPEECH),
    ]
    alone = [(await stub.Align(request)).words for request in requests]
    together = await asyncio.gather(*(stub.Align(request) for request in requests * 2))
    assert [response.words for response in together] == alone * 2


async def test_an_unreadable_word_comes_back_not_found(stub) -> None:
    transcript = TRANSCRIPT.replace("wizard", "巫师")
    response = await stub.Align(pb.AlignRequest(config=config(transcript), audio=SPEECH))
    check_order(response)
    assert len(response.words) == len(WORDS)
    assert [word.text for word in response.words if word.status == pb.WORD_STATUS_NOT_FOUND] == ["巫师"]
    assert "WORDS_UNREADABLE" in {warning.code for warning in response.summary.warnings}
    assert all(transcript[word.char_start : word.char_end] == word.text for word in response.words)


async def test_http_gives_the_same_words_to_the_millisecond(server, stub, answers) -> None:
    expected = await the_answer(stub, answers)
    async with httpx.AsyncClient(base_url=f"http://{server.http_address}", trust_env=False, timeout=60) as client:
        data = {"text": TRANSCRIPT, "language": "en"}
        answer = await client.post("/v1/audio/alignments", files={"file": SPEECH}, data=data)
    found = json_format.Parse(answer.text, pb.AlignResponse())
    assert list(found.words) == list(expected.words)
