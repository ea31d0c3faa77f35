"""Whatever a caller sends to Align, the answer is words or one clear refusal, and the server goes on."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import grpc
import numpy as np
import pytest

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.config.limits import MIB, Limits
from tests.kit.recordings import SPEECH, TRANSCRIPT, WORDS, encode, raw_wav, samples, wav
from tests.kit.refusals import check, refusal
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, serving

INVALID = grpc.StatusCode.INVALID_ARGUMENT
LINEAR16, FLOAT32, MULAW = pb.AUDIO_ENCODING_LINEAR16, pb.AUDIO_ENCODING_FLOAT32, pb.AUDIO_ENCODING_MULAW


@dataclass(frozen=True)
class Case:
    reason: str
    field: str
    audio: Callable[[], bytes] = lambda: SPEECH
    transcript: str = TRANSCRIPT
    language: str = "en"
    encoding: int = 0
    rate: int = 0
    channels: int = 0
    code: grpc.StatusCode = INVALID
    says: str = ""

    def request(self) -> pb.AlignRequest:
        config = pb.AlignConfig(
            transcript=self.transcript,
            language=self.language,
            encoding=self.encoding,
            sample_rate_hz=self.rate,
            channels=self.channels,
        )
        return pb.AlignRequest(config=config, audio=self.audio())


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (1).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def not_finite(value: float) -> bytes:
    audio = samples().astype("<f4") / 32768
    audio[1000] = value
    return audio.tobytes()


def noise() -> bytes:
    return np.random.default_rng(0).bytes(50_000)


CASES: dict[str, Case] = {
    # the audio
    "no audio": Case("AUDIO_EMPTY", "audio", lambda: b""),
    "no samples": Case("AUDIO_EMPTY", "audio", lambda: b"", encoding=LINEAR16, rate=16_000),
    "half a sample": Case("AUDIO_EMPTY", "audio", lambda: b"1", encoding=LINEAR16, rate=16_000),
    "a wav without samples": Case("AUDIO_EMPTY", "audio", lambda: raw_wav(b"")),
    "less than a word": Case("AUDIO_TOO_SHORT", "audio", lambda: wav(samples()[:160]), says="10 ms"),
    "one sample": Case("AUDIO_TOO_SHORT", "audio", lambda: bytes(2), encoding=LINEAR16, rate=16_000),
    "a header with 0 channels": Case(
        "CHANNELS_OUT_OF_RANGE", "audio", lambda: raw_wav(bytes(32_000), channels=0), says="has 0 channels",
    ),
    "a header with 1024 channels": Case(
        "CHANNELS_OUT_OF_RANGE", "audio", lambda: raw_wav(bytes(64_000), channels=1024), says="1024 channels",
    ),
    "a header with a rate of 0": Case("SAMPLE_RATE_OUT_OF_RANGE", "audio", lambda: raw_wav(bytes(32_000), rate=0)),
    "a header with a rate of 1 Hz": Case("SAMPLE_RATE_OUT_OF_RANGE", "audio", lambda: raw_wav(bytes(32_000), rate=1)),
    "a header with a rate of 4 GHz": Case("SAMPLE_RATE_OUT_OF_RANGE", "audio", lambda: raw_wav(bytes(32_000), rate=2**32 - 1)),
    "text that is called .wav": Case("AUDIO_UNSUPPORTED", "audio", lambda: b"It was a dark night.\n" * 99, says="text"),
    "a picture": Case("AUDIO_UNSUPPORTED", "audio", png, says="PNG"),
    "a playlist": Case("AUDIO_UNSUPPORTED", "audio", lambda: b"#EXTM3U\nfile:///etc/passwd\n", says="playlist"),
    "noise": Case("AUDIO_UNSUPPORTED", "audio", noise),
    "a magic number and noise": Case("AUDIO_UNREADABLE", "audio", lambda: b"fLaC" + noise()),
    "NaN in a float wav": Case("AUDIO_NOT_FINITE", "audio", lambda: raw_wav(not_finite(np.nan), tag=3, bits=32)),
    "infinity in a float wav": Case("AUDIO_NOT_FINITE", "audio", lambda: raw_wav(not_finite(np.inf), tag=3, bits=32)),
    "NaN in FLOAT32": Case("AUDIO_NOT_FINITE", "audio", lambda: not_finite(np.nan), encoding=FLOAT32, rate=16_000),
    "LINEAR16 without a rate": Case("SAMPLE_RATE_REQUIRED", "config.sample_rate_hz", encoding=LINEAR16),
    "MULAW at 3999 Hz": Case("SAMPLE_RATE_OUT_OF_RANGE", "config.sample_rate_hz", encoding=MULAW, rate=3_999, says="3999 Hz"),
    "FLOAT32 at 192001 Hz": Case("SAMPLE_RATE_OUT_OF_RANGE", "config.sample_rate_hz", encoding=FLOAT32, rate=192_001),
    "9 channels": Case("CHANNELS_OUT_OF_RANGE", "config.channels", encoding=LINEAR16, rate=16_000, channels=9, says="9 channels"),
    "an encoding from the future": Case("ENCODING_UNKNOWN", "config.encoding", encoding=99),
    "more than a message may hold": Case(
        "AUDIO_TOO_LARGE", "audio", lambda: wav(np.zeros(5 * MIB, np.int16)),
        code=grpc.StatusCode.RESOURCE_EXHAUSTED, says="StreamAlign",
    ),
    # the transcript
    "no transcript": Case("TRANSCRIPT_EMPTY", "config.transcript", transcript=""),
    "blanks": Case("TRANSCRIPT_EMPTY", "config.transcript", transcript=" \n\t\u3000"),
    "punctuation": Case("TRANSCRIPT_NO_WORDS", "config.transcript", transcript="... - ?!"),
    "emoji": Case("TRANSCRIPT_NO_WORDS", "config.transcript", transcript="\N{GRINNING FACE} \N{THUMBS UP SIGN}\U0001f3fd"),
    "a book": Case("TRANSCRIPT_TOO_LONG", "config.transcript", transcript="a " * 100_000 + "b", says="200001"),
    # the language
    "no language": Case("LANGUAGE_INVALID", "config.language", language=""),
    "a name for a tag": Case("LANGUAGE_INVALID", "config.language", language="the English language"),
    "a malformed tag": Case("LANGUAGE_INVALID", "config.language", language="en--GB"),
    "a tag of a megabyte": Case("LANGUAGE_INVALID", "config.language", language="en-" * 350_000),
    "a language that is none": Case("LANGUAGE_UNKNOWN", "config.language", language="xx", says="aligns de"),
    "a language of letters without vowels": Case("LANGUAGE_UNKNOWN", "config.language", language="ar", says="'ar'"),
    "Italian": Case(
        "LANGUAGE_UNSUPPORTED", "config.language", language="it-IT",
        code=grpc.StatusCode.FAILED_PRECONDITION, says="Qwen3-ForcedAligner",
    ),
}  # fmt: skip


async def refused(stub, request: pb.AlignRequest) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        await stub.Align(request)
    return error.value


def check_case(case: Case, error: grpc.RpcError) -> None:
    reported = refusal(error)
    check(reported, case.code, case.reason, case.field)
    assert case.says in reported.message


@pytest.mark.parametrize("name", CASES)
async def test_refused(stub, name):
    check_case(CASES[name], await refused(stub, CASES[name].request()))


async def test_no_config(stub):
    check(refusal(await refused(stub, pb.AlignRequest(audio=SPEECH))), INVALID, "CONFIG_MISSING", "config")


async def test_far_more_than_a_message_may_hold(stub):
    """Beyond twice the limit the transport itself refuses, unread: its status has no details."""
    error = await refused(stub, pb.AlignRequest(audio=bytes(24 * MIB)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_longer_than_the_server_takes():
    limits, engine = Limits(audio_seconds=4), ScriptedEngine()
    long = Case("AUDIO_TOO_LONG", "audio", says="4 seconds")
    headerless = replace(long, audio=lambda: samples().tobytes(), encoding=LINEAR16, rate=16_000)
    async with serving(engine=engine, limits=limits) as server, calling(server.address) as stub:
        for case in (long, headerless):
            check_case(case, await refused(stub, case.request()))
    assert not engine.started


TRUNCATED: dict[str, Callable[[], bytes]] = {
    "wav": lambda: wav(samples()),
    "flac": lambda: SPEECH,
    "mp3": lambda: encode("mp3", "libmp3lame", rate=44_100),
    "ogg": lambda: encode("ogg", "libopus", rate=48_000),
}


@pytest.mark.parametrize("container", TRUNCATED)
async def test_a_recording_cut_in_half_is_aligned_as_far_as_it_goes(stub, container):
    whole = TRUNCATED[container]()
    config = pb.AlignConfig(transcript=TRANSCRIPT, language="en")
    response = await stub.Align(pb.AlignRequest(config=config, audio=whole[: len(whole) // 2]))
    assert [word.text for word in response.words] == list(WORDS)
    assert response.words[0].status == pb.WORD_STATUS_ALIGNED
    assert response.words[-1].status == pb.WORD_STATUS_NOT_FOUND
    assert response.summary.audio_ms < 3_500
    codes = {warning.code for warning in response.summary.warnings}
    if container != "ogg":  # an Ogg stream may end on any page: nothing says that there was more
        assert "AUDIO_TRUNCATED" in codes


async def test_a_cut_m4a_says_that_it_cannot_be_read(stub):
    """Its index is at its end."""
    whole = encode("ipod", "aac", rate=44_100)
    error = await refused(
        stub, pb.AlignRequest(config=pb.AlignConfig(transcript="a", language="en"), audio=whole[: len(whole) // 2])
    )
    check(refusal(error), INVALID, "AUDIO_UNREADABLE", "audio")


async def test_words_that_are_not_in_silence(stub):
    config = pb.AlignConfig(transcript="Hello, world", language="en")
    response = await stub.Align(pb.AlignRequest(config=config, audio=wav(np.zeros(48_000, np.int16))))
    assert [word.text for word in response.words] == ["Hello", "world"]
    assert {word.status for word in response.words} == {pb.WORD_STATUS_NOT_FOUND}
    assert {word.confidence for word in response.words} == {0.0}
    assert all(word.start_ms == word.end_ms for word in response.words)
    warnings = {warning.code: warning.message for warning in response.summary.warnings}
    assert set(warnings) == {"AUDIO_SILENT", "WORDS_NOT_FOUND"}
    assert all(warnings.values())
    assert response.summary.audio_ms == 3_000


async def test_no_message_repeats_what_the_caller_sent(stub):
    """A transcript is somebody's words: it belongs in no message, which ends up in logs."""
    for case in CASES.values():
        error = await refused(stub, case.request())
        assert not re.search("wizard|curtain|passwd", error.details())


async def test_after_all_of_them_at_once_the_server_answers_as_before(server, stub):
    pids = server.engine.short.pool.pids, server.decoder.pool.pids
    good = pb.AlignRequest(config=pb.AlignConfig(transcript=TRANSCRIPT, language="en"), audio=SPEECH)
    before = await stub.Align(good)
    errors = await asyncio.gather(*(refused(stub, case.request()) for case in CASES.values()))
    for case, error in zip(CASES.values(), errors, strict=True):
        check_case(case, error)
    assert (await stub.Align(good)).words == before.words
    assert (server.engine.short.pool.pids, server.decoder.pool.pids) == pids, "no refusal costs a process"
