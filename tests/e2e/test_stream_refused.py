"""StreamAlign uploads that break a rule: each is refused at once, by its own reason, and costs nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable

import grpc
import pytest
import pytest_asyncio

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.config.limits import Limits, StreamSettings
from aligner_svc.server import Service
from tests.kit.refusals import check, refusal
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, serving
from tests.kit.uploads import Stage, audio, chunks, config, reached, refused, send, stream, text

INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
KIB = 1024

Requests = Callable[[], Iterable[pb.StreamAlignRequest]]
CASES: dict[str, tuple[Requests, grpc.StatusCode, str, str]] = {
    "audio before the config": (lambda: [audio(b"fLaC")], INVALID, "CONFIG_MISSING", "config"),
    "text before the config": (lambda: [text("words")], INVALID, "CONFIG_MISSING", "config"),
    "nothing in the first message": (lambda: [pb.StreamAlignRequest()], INVALID, "CONFIG_MISSING", "config"),
    "a second config": (lambda: [config(), config()], INVALID, "CONFIG_REPEATED", "config"),
    "a config after audio": (lambda: [config(), *chunks(), config()], INVALID, "CONFIG_REPEATED", "config"),
    "an empty message": (lambda: [config(), pb.StreamAlignRequest()], INVALID, "MESSAGE_EMPTY", "payload"),
    "a chunk over the limit": (lambda: [config(), audio(bytes(128 * KIB + 1))], INVALID, "CHUNK_TOO_LARGE", "audio"),
    "more than the limit in all": (
        lambda: [config(), *chunks(bytes(512 * KIB)), audio(b"1")], EXHAUSTED, "AUDIO_TOO_LARGE", "audio",
    ),
    "a transcript over the limit": (lambda: [config("word " * 401)], INVALID, "TRANSCRIPT_TOO_LONG", "config.transcript"),
    "pieces of text over the limit": (
        lambda: [config("word " * 399), *chunks(), text("word "), text("w")], INVALID, "TRANSCRIPT_TOO_LONG", "config.transcript",
    ),
    "an unknown language": (lambda: [config(language="xx")], INVALID, "LANGUAGE_UNKNOWN", "config.language"),
    "a language of another engine": (
        lambda: [config(language="it")], grpc.StatusCode.FAILED_PRECONDITION, "LANGUAGE_UNSUPPORTED", "config.language",
    ),
    "an encoding from the future": (lambda: [config(encoding=99)], INVALID, "ENCODING_UNKNOWN", "config.encoding"),
}  # fmt: skip

AT_THE_END: dict[str, tuple[Requests, grpc.StatusCode, str, str]] = {
    "nothing at all": (list, INVALID, "CONFIG_MISSING", "config"),
    "no audio": (lambda: [config()], INVALID, "AUDIO_EMPTY", "audio"),
    "no transcript": (lambda: [config(""), *chunks()], INVALID, "TRANSCRIPT_EMPTY", "config.transcript"),
    "no words": (lambda: [config("..."), *chunks(), text("!")], INVALID, "TRANSCRIPT_NO_WORDS", "config.transcript"),
    "no audio format": (lambda: [config(), audio(b"once upon a time")], INVALID, "AUDIO_UNSUPPORTED", "audio"),
    "no sample rate": (
        lambda: [config(encoding=pb.AUDIO_ENCODING_LINEAR16), audio(bytes(9999))],
        INVALID, "SAMPLE_RATE_REQUIRED", "config.sample_rate_hz",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(engine) -> AsyncIterator[Service]:
    limits = Limits(stream_audio_bytes=512 * KIB, stream_chunk_bytes=128 * KIB, transcript_chars=2_000)
    async with serving(engine=engine, limits=limits, stream=StreamSettings(concurrent=1)) as running:
        yield running


@pytest.mark.parametrize("name", CASES)
async def test_refused_while_the_sender_is_still_at_it(stub, name):
    requests, code, reason, field = CASES[name]
    check(refusal(await refused(stub, requests())), code, reason, field)


@pytest.mark.parametrize("name", AT_THE_END)
async def test_refused_when_the_upload_is_complete(stub, name):
    requests, code, reason, field = AT_THE_END[name]
    check(refusal(await refused(stub, requests(), half_close=True)), code, reason, field)


async def test_the_limits_themselves_are_within_the_limits(stub):
    # 8 kHz: 400 words in 33 s, which somebody could say.
    first = config("word " * 400, encoding=pb.AUDIO_ENCODING_LINEAR16, sample_rate_hz=8_000)
    answer = await stream(stub, [first, *(audio(bytes(128 * KIB)) for _ in range(4))])
    assert len(answer.words) == 400


async def test_a_refusal_gives_back_its_slot_and_starts_no_work(stub, engine):
    before = len(engine.started)
    for requests, *_ in CASES.values():
        await refused(stub, requests())
    assert len(engine.started) == before
    assert (await stream(stub, [config(), *chunks()])).words


async def test_a_silent_sender_is_sent_away(engine):
    async with (
        serving(engine=engine, stream=StreamSettings(concurrent=1, idle_timeout=0.2)) as server,
        calling(server.address) as stub,
    ):
        for sent in ([], [config()], [config(), *chunks()]):
            error = refusal(await refused(stub, sent))
            check(error, INVALID, "STREAM_IDLE", "payload")
            assert "0.2 seconds" in error.message


async def test_a_stream_that_waits_for_its_answer_is_not_silent(engine):
    """The timeout is for the upload; the engine may take its time."""
    async with serving(engine=engine, stream=StreamSettings(idle_timeout=1.0)) as server, calling(server.address) as stub:
        engine.gate.clear()
        call = stub.StreamAlign()
        await send(call, [config(), *chunks()])
        await call.done_writing()
        await reached(call, Stage.STAGE_ALIGNING)
        late = refusal(await refused(stub, [config()]))  # another stream sits out the whole timeout
        assert late.reason == "STREAM_IDLE"
        engine.gate.set()
        rest = [message.WhichOneof("payload") async for message in call]
        assert rest[-2:] == ["words", "summary"]
