"""What a request must be, through the real server: the proto's rules, declared sizes and digests, and text that is text."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from aligner_client import AlignerClientError, AsyncAligner
from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.config.limits import Limits
from aligner_svc.rpc.field_rules import ProtoRules
from aligner_svc.server import Service
from tests.kit.recordings import SAMPLE, SPEECH, TRANSCRIPT, WORDS, encode, samples, wav
from tests.kit.refusals import check, refusal
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, serving
from tests.kit.uploads import audio, chunks, config, refused, stream, text

INVALID, LOST = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.DATA_LOSS
SIZE, SHA256 = len(SPEECH), hashlib.sha256(SPEECH).digest()
LINEAR16 = pb.AUDIO_ENCODING_LINEAR16


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(engine) -> AsyncIterator[Service]:
    async with serving(engine=engine) as running:
        yield running


def align(transcript: str = TRANSCRIPT, data: bytes = SPEECH, **rest) -> pb.AlignRequest:
    return pb.AlignRequest(config=pb.AlignConfig(transcript=transcript, **({"language": "en"} | rest)), audio=data)


async def align_refused(stub, request: pb.AlignRequest) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        await stub.Align(request)
    return caught.value


async def reason(stub, request: pb.AlignRequest) -> str:
    return refusal(await align_refused(stub, request)).reason


# The proto's rules

BROKEN = {
    "language": ({"language": "engl"}, "LANGUAGE_INVALID", "config.language"),
    "encoding": ({"encoding": 99}, "ENCODING_UNKNOWN", "config.encoding"),
    "rate": ({"encoding": LINEAR16, "sample_rate_hz": 3_999}, "SAMPLE_RATE_OUT_OF_RANGE", "config.sample_rate_hz"),
    "channels": ({"encoding": LINEAR16, "sample_rate_hz": 16_000, "channels": 9}, "CHANNELS_OUT_OF_RANGE", "config.channels"),
    "digest": ({"audio_sha256": SHA256[:31]}, "PAYLOAD_INVALID", "config.audio_sha256"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_rule_in_align(stub, name):
    rest, code, field = BROKEN[name]
    check(refusal(await align_refused(stub, align(**rest))), INVALID, code, field)


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_rule_in_a_stream_is_refused_before_any_audio(stub, name):
    rest, code, field = BROKEN[name]
    check(refusal(await refused(stub, [config(**rest)])), INVALID, code, field)


async def test_several_broken_rules_are_reported_together(stub):
    reported = refusal(await align_refused(stub, align(language="", encoding=99, audio_sha256=b"1")))
    assert (reported.code, reported.reason) == (INVALID, "LANGUAGE_INVALID")
    assert reported.fields == ("config.language", "config.encoding", "config.audio_sha256")


async def test_answers_obey_their_rules(stub):
    rules = ProtoRules([pb.AlignResponse, pb.StreamAlignResponse])
    assert rules(await stub.Align(align())) == ()
    answer = await stream(stub, [config(), *chunks()])
    assert [rules(message) for message in answer.messages] == [()] * len(answer.messages)
    backwards = pb.AlignResponse(words=[pb.Word(start_ms=2, end_ms=1)])
    assert rules(backwards), "or else they say nothing"


# What was declared


@pytest.mark.parametrize(
    "declared", [{"audio_bytes": SIZE}, {"audio_sha256": SHA256}, {"audio_bytes": SIZE, "audio_sha256": SHA256}]
)
async def test_what_was_declared_is_aligned(stub, declared):
    assert [word.text for word in (await stub.Align(align(**declared))).words] == list(WORDS)
    assert [word.text for word in (await stream(stub, [config(**declared), *chunks()])).words] == list(WORDS)


CUT = {
    "cut short": ({"audio_bytes": SIZE}, SPEECH[:-1], "AUDIO_INCOMPLETE"),
    "nothing of it": ({"audio_bytes": SIZE, "audio_sha256": SHA256}, b"", "AUDIO_INCOMPLETE"),
    "cut short, by its digest": ({"audio_sha256": SHA256}, SPEECH[:-1], "AUDIO_DIGEST_MISMATCH"),
    "a bit flipped": (
        {"audio_bytes": SIZE, "audio_sha256": SHA256},
        SPEECH[:-1] + bytes([SPEECH[-1] ^ 1]),
        "AUDIO_DIGEST_MISMATCH",
    ),
}


@pytest.mark.parametrize("name", CUT)
async def test_other_audio_is_never_answered(stub, engine, name):
    """Half a FLAC would be aligned as far as it goes without a warning."""
    declared, data, code = CUT[name]
    before = len(engine.started)
    check(refusal(await align_refused(stub, align(data=data, **declared))), LOST, code, "audio")
    error = await refused(stub, [config(**declared), *chunks(data)], half_close=True)
    check(refusal(error), LOST, code, "audio")
    assert len(engine.started) == before


async def test_more_than_declared_is_refused_as_it_comes(stub):
    assert await reason(stub, align(audio_bytes=SIZE - 1)) == "AUDIO_SURPLUS"
    error = await refused(stub, [config(audio_bytes=1000), audio(bytes(1000)), audio(b"1")])
    check(refusal(error), LOST, "AUDIO_SURPLUS", "audio")


async def test_more_than_the_server_takes_is_refused_before_it_is_sent(stub):
    error = await refused(stub, [config(audio_bytes=Limits().stream_audio_bytes + 1)])
    check(refusal(error), grpc.StatusCode.RESOURCE_EXHAUSTED, "AUDIO_TOO_LARGE", "audio")


async def test_the_client_declares_and_is_answered(server):
    async with AsyncAligner(server.address) as aligner:
        for call in (
            aligner.align(SAMPLE, TRANSCRIPT),
            aligner.stream_align(SAMPLE, TRANSCRIPT),
            aligner.align(SPEECH, TRANSCRIPT),
        ):
            assert [word.text for word in (await call).words] == list(WORDS)


async def test_the_client_hears_of_a_loss(server, monkeypatch):
    """The last chunk gets lost between the file and the server."""
    from aligner_client.source import FileSource  # noqa: PLC0415

    start = FileSource.start

    def cut(self):
        read, left = start(self), [SIZE - 1]

        def some():
            chunk = read()[: left[0]]
            left[0] -= len(chunk)
            return chunk

        return some

    monkeypatch.setattr(FileSource, "start", cut)
    async with AsyncAligner(server.address) as aligner:
        with pytest.raises(AlignerClientError) as caught:
            await aligner.stream_align(SAMPLE, TRANSCRIPT)
    assert (caught.value.code, caught.value.reason) == (LOST, "AUDIO_INCOMPLETE")


# Text


@pytest.mark.parametrize("char", ["\0", "\x1b", "\u202e", "\u2069", "\ue000", "\uffff"])
async def test_characters_no_transcript_needs(stub, char):
    error = refusal(await align_refused(stub, align(f"He was in {char} a fevered state")))
    check(error, INVALID, "TRANSCRIPT_CHARACTER_REFUSED", "config.transcript")
    assert f"U+{ord(char):04X}" in error.message
    assert "character 10" in error.message
    assert "fevered" not in error.message


async def test_a_character_in_a_later_piece_is_counted_from_the_beginning(stub):
    error = refusal(await refused(stub, [config("0123456789"), text("\U0001f600"), audio(b"fLaC"), text("ab\u202ec")]))
    check(error, INVALID, "TRANSCRIPT_CHARACTER_REFUSED", "config.transcript")
    assert "character 13" in error.message


async def test_marks_in_a_heap_across_pieces(stub):
    pieces = [config("a"), *(text("\u0301\u0316") for _ in range(16)), *chunks()]
    check(refusal(await refused(stub, pieces, half_close=True)), INVALID, "TRANSCRIPT_MARKS_EXCESSIVE", "config.transcript")


async def test_unpaired_surrogates_never_get_in(server):
    """Protobuf has none in a string; bytes written without protobuf are refused as malformed."""
    raw = align().SerializeToString().replace(b"He ", b"\xed\xa0\x80", 1)
    assert b"\xed\xa0\x80" in raw
    async with grpc.aio.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            await channel.unary_unary("/aligner.v1.Aligner/Align")(raw)
    check(refusal(caught.value), INVALID, "MESSAGE_MALFORMED", None)


async def test_markup_comes_back_as_it_was_sent(stub):
    """Escaping is the task of what displays the text: an answer of &lt;b&gt; would have changed it."""
    sent = '<b>"fish & chips"</b>'
    for word in (await stub.Align(align(sent))).words:
        assert sent[word.char_start : word.char_end] == word.text


async def test_decomposed_text_is_aligned_in_the_places_it_was_sent_with(stub):
    composed = "The caf\u00e9\u2019s na\u00efve r\u00e9sum\u00e9"
    sent = unicodedata.normalize("NFD", composed)
    words = (await stub.Align(align(sent))).words
    assert [sent[word.char_start : word.char_end] for word in words] == [word.text for word in words]
    assert [unicodedata.normalize("NFC", word.text) for word in words] == composed.split()


# How much can be said


async def test_more_than_anybody_could_say(stub, engine):
    before = len(engine.started)
    dense = align("word " * 40, wav(samples()[:32_000]))
    check(refusal(await align_refused(stub, dense)), INVALID, "TRANSCRIPT_TOO_DENSE", "config.transcript")
    assert len(engine.started) == before


async def test_text_for_minutes_is_held_against_the_packets_of_a_file(stub, engine):
    before = len(engine.started)
    dense = align("word " * 3000, encode("ogg", "libopus", rate=48_000))
    check(refusal(await align_refused(stub, dense)), INVALID, "TRANSCRIPT_TOO_DENSE", "config.transcript")
    assert len(engine.started) == before


async def test_more_than_people_say(stub):
    response = await stub.Align(align("word " * 30, wav(samples()[:32_000])))
    assert [warning.code for warning in response.summary.warnings] == ["TRANSCRIPT_DENSE"]


async def test_a_server_that_only_warns(engine):
    async with serving(engine=engine, limits=Limits(transcript_dense="warn")) as server, calling(server.address) as stub:
        response = await stub.Align(align("word " * 40, wav(samples()[:32_000])))
    assert [warning.code for warning in response.summary.warnings] == ["TRANSCRIPT_DENSE"]
    assert len(response.words) == 40


async def test_a_limit_of_words(engine):
    async with serving(engine=engine, limits=Limits(transcript_words=10)) as server, calling(server.address) as stub:
        assert len((await stub.Align(align("word " * 10))).words) == 10
        error = refusal(await align_refused(stub, align("word " * 11)))
    check(error, INVALID, "TRANSCRIPT_TOO_LONG", "config.transcript")
    assert "11 words" in error.message
