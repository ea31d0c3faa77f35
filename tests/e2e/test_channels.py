"""A call with a speaker on each channel: each transcript is aligned on its own channel, and the words come in one order."""

from __future__ import annotations

import io
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import av
import grpc
import numpy as np
import pytest
import pytest_asyncio

from aligner_client import (
    Alignment,
    AsyncAligner,
    FailedPreconditionError,
    InvalidArgumentError,
    ResourceExhaustedError,
    WordStatus,
)
from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_svc.config.limits import Limits
from aligner_svc.config.protection import QuotaSettings
from aligner_svc.server import Service
from tests.kit.recordings import TRANSCRIPT, Samples, raw_wav, samples, wav
from tests.kit.refusals import check, refusal
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import serving

AGENT, CALLER = "He began a confused complaint against the wizard,", "who had vanished behind the curtain on the left."
TEXTS = {0: AGENT, 1: CALLER}


def call(*channels: Samples) -> bytes:
    return raw_wav(np.stack(channels, axis=1).astype("<i2").tobytes(), channels=len(channels))


def voices() -> tuple[Samples, Samples]:
    """Two that speak at once for most of the time, the second more quietly."""
    whole = samples()
    cut, length = round(2.53 * 16_000), 3 * 16_000
    agent, caller = np.zeros(length, np.int16), np.zeros(length, np.int16)
    agent[:cut] = whole[:cut]
    caller[length - len(whole) + cut :] = whole[cut:] // 4
    return agent, caller


def transcoded(file: bytes, container: str, codec: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(io.BytesIO(file)) as source, av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=16_000, layout="stereo")
        resampler = av.AudioResampler(format=stream.format, layout="stereo", rate=16_000, frame_size=stream.frame_size)
        for frame in (*source.decode(audio=0), None):
            for part in resampler.resample(frame):
                out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def said(alignment: Alignment) -> list[tuple[str, float, float, int]]:
    return [(word.text, word.start, word.end, word.char_start) for word in alignment.words]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alone(server: Service) -> list[Alignment]:
    """Each voice as a recording of its own."""
    async with AsyncAligner(server.address) as client:
        return [await client.align(wav(voice), text) for voice, text in zip(voices(), TEXTS.values(), strict=True)]


@pytest.mark.parametrize("form", ["wav", "flac in chunks", "headerless", "m4a"])
async def test_each_channel_has_the_words_that_it_has_alone_and_all_come_in_the_order_of_their_times(
    server: Service, alone: list[Alignment], form: str
) -> None:
    stereo = call(*voices())
    async with AsyncAligner(server.address) as client:
        match form:
            case "wav":
                answer = await client.align(stereo, TEXTS)
            case "flac in chunks":
                answer = await client.stream_align(transcoded(stereo, "flac", "flac"), TEXTS)
            case "headerless":
                answer = await client.align(stereo[44:], TEXTS, encoding="linear16", sample_rate_hz=16_000, channels=2)
            case _:
                answer = await client.align(transcoded(stereo, "mp4", "aac"), TEXTS)
    assert all(first.start <= second.start for first, second in pairwise(answer.words))
    assert {word.channel for word in answer.words[:8]} == {0, 1}
    for number, one in enumerate(alone):
        channel = answer.channel(number)
        assert [word.text for word in channel.words] == [word.text for word in one.words]
        assert [TEXTS[number][word.char_start : word.char_end] for word in channel.words] == [word.text for word in one.words]
        if form == "m4a":
            assert [word.start for word in channel.words] == pytest.approx([word.start for word in one.words], abs=0.05)
        else:
            assert said(channel) == said(one)
            assert channel.match_score == one.match_score
    assert answer.match_score == min(one.match_score for one in answer.channels)
    assert answer.audio_seconds == 3.0 or form == "m4a"


async def test_what_is_wrong_with_one_channel_is_said_of_it_and_leaves_the_other_as_it_is(
    server: Service, alone: list[Alignment]
) -> None:
    agent, caller = voices()
    async with AsyncAligner(server.address) as client:
        silent = await client.align(call(agent, np.zeros_like(caller)), TEXTS)
        swapped = await client.align(call(caller, agent), TEXTS)
        with pytest.raises(FailedPreconditionError) as refused:
            await client.align(call(agent, np.zeros_like(caller)), TEXTS, min_match_score=0.2)
        third = await client.align(call(agent, agent, caller), {2: CALLER})
    assert said(silent.channel(0)) == said(alone[0])
    assert {word.status for word in silent.channel(1).words} == {WordStatus.NOT_FOUND}
    assert {(warning.code, warning.channel) for warning in silent.warnings} == {("AUDIO_SILENT", 1), ("WORDS_NOT_FOUND", 1)}
    assert silent.channel(0).warnings == alone[0].warnings == ()
    assert {warning.channel for warning in swapped.warnings if warning.code == "TRANSCRIPT_MISMATCH"} == {0, 1}
    assert (refused.value.reason, str(refused.value).count("channel 1: ")) == ("MATCH_SCORE_TOO_LOW", 1)
    assert said(third) == said(alone[1])
    assert {word.channel for word in third.words} == {2}


@pytest.mark.parametrize(
    ("transcripts", "reason", "says"),
    [
        ({0: AGENT, 1: CALLER, 2: CALLER}, "CHANNEL_UNKNOWN", "2 channel(s)"),
        ({8: AGENT}, "CHANNEL_UNKNOWN", "at most 8"),
        ({0: AGENT, 1: " "}, "TRANSCRIPT_EMPTY", "channel 1: "),
        ({0: "[silence]", 1: CALLER}, "TRANSCRIPT_NO_WORDS", "channel 0: "),
        ({0: AGENT, 1: "word " * 200}, "TRANSCRIPT_TOO_DENSE", "channel 1: "),
    ],
)
async def test_channels_that_cannot_be_aligned_are_refused_by_name(
    server: Service, transcripts: Mapping[int, str], reason: str, says: str
) -> None:
    async with AsyncAligner(server.address) as client:
        for align in (client.align, client.stream_align):
            with pytest.raises(InvalidArgumentError) as refused:
                await align(call(*voices()), transcripts)
            assert refused.value.reason == reason
            assert says in str(refused.value)
            assert refused.value.violations[0].field.startswith("config.channel_transcripts")


@pytest.mark.parametrize("other", ["transcript", "format", "message", "twice"])
async def test_a_channel_has_one_transcript_and_no_other_is_beside_it(stub: AlignerStub, other: str) -> None:
    one = pb.ChannelTranscript(channel=1, transcript=AGENT)
    config = pb.AlignConfig(language="en", channel_transcripts=[one])
    messages = [pb.StreamAlignRequest(config=config)]
    match other:
        case "transcript":
            config.transcript = TRANSCRIPT
        case "format":
            config.transcript_format = pb.TRANSCRIPT_FORMAT_SRT
        case "message":
            messages.append(pb.StreamAlignRequest(transcript=TRANSCRIPT))
        case _:
            config.channel_transcripts.append(one)
    messages[0].config.CopyFrom(config)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.StreamAlign(messages).read()
    reason = "CHANNEL_TRANSCRIPTS_INVALID" if other == "twice" else "TRANSCRIPTS_EXCLUSIVE"
    check(refusal(refused.value), grpc.StatusCode.INVALID_ARGUMENT, reason, "config.channel_transcripts")


async def test_channels_count_as_so_many_recordings(tmp_path: Path) -> None:
    (tmp_path / "quotas.toml").write_text("[classes.default]\naudio_seconds_per_day = 11\n")
    quota = QuotaSettings(file=tmp_path / "quotas.toml")
    stereo = call(*voices())
    limits = Limits(audio_seconds=5)
    async with serving(engine=ScriptedEngine(), limits=limits) as running, AsyncAligner(running.address) as client:
        with pytest.raises(InvalidArgumentError, match=r"longer than the 2\.5 seconds"):
            await client.align(stereo, TEXTS)
        assert (await client.align(stereo, {0: AGENT})).audio_seconds == 3.0
    async with serving(engine=ScriptedEngine(), quota=quota) as running, AsyncAligner(running.address) as client:
        await client.align(stereo, TEXTS)
        with pytest.raises(ResourceExhaustedError):
            await client.align(stereo, TEXTS)
