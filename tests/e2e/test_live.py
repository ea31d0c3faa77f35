"""StreamAlign while the recording is spoken: words before its end, and all ends that it can have."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.engines import live
from aligner_svc.rpc import upload
from tests.aligner_svc.audio.arriving.test_container import encoded
from tests.kit.recordings import TRANSCRIPT, WORDS, flac, repeated, samples, wav
from tests.kit.refusals import refusal
from tests.kit.servers import calling
from tests.kit.uploads import audio, chunks, config, linear16, send, stream, text
from tests.kit.waiting import eventually

TWICE, TWICE_TEXT = repeated(2)
BARE = TWICE[44:]


@pytest.fixture(autouse=True)
def paced(monkeypatch) -> None:
    """Whatever comes counts as spoken now."""
    monkeypatch.setattr(live, "_PACE", 0.0)


async def until_words(call) -> list[pb.Word]:
    async for message in call:
        if message.words.words:
            return list(message.words.words)
    raise AssertionError("the stream ended without words")


FLAC = flac(np.tile(samples(), 2))


@pytest.mark.parametrize(
    ("head", "data"),
    [(linear16(TWICE_TEXT), BARE), (config(TWICE_TEXT), TWICE), (config(TWICE_TEXT), FLAC)],
    ids=["bare", "wav", "flac"],
)
async def test_words_come_while_the_upload_is_open(stub, head, data, monkeypatch):
    monkeypatch.setattr(upload, "_LONG_BYTES", 0)
    call = stub.StreamAlign()
    await send(call, [head, *chunks(data)])
    first = await until_words(call)
    assert not call.done()
    await call.done_writing()
    rest = [message async for message in call]
    words = first + [word for message in rest for word in message.words.words]
    assert [word.text for word in words] == list(WORDS) * 2
    assert all(word.status == pb.WORD_STATUS_ALIGNED for word in words)
    ends = [0, *(time for word in words for time in (word.start_ms, word.end_ms))]
    assert ends == sorted(ends)
    assert rest[-1].summary.audio_ms == len(BARE) // 32
    assert rest[-1].summary.match_score > 0.75


@pytest.mark.parametrize(("movflags", "codes"), [("faststart", []), ("", ["AUDIO_INDEX_AT_END"])])
async def test_an_mp4_with_its_index_at_either_end(stub, monkeypatch, movflags, codes):
    monkeypatch.setattr(upload, "_LONG_BYTES", 0)
    answer = await stream(stub, [config(repeated(3)[1]), *chunks(encoded("mov", movflags))])
    assert [word.text for word in answer.words] == list(WORDS) * 3
    assert pb.WORD_STATUS_NOT_FOUND not in {word.status for word in answer.words}
    assert [warning.code for warning in answer.summary.warnings] == codes


@pytest.mark.parametrize(("head", "data"), [(linear16(TWICE_TEXT), BARE), (config(TWICE_TEXT), FLAC)], ids=["bare", "flac"])
async def test_where_the_chunks_are_cut_does_not_matter(stub, head, data, monkeypatch):
    """Nor that the first ones, of a header, have a byte each."""
    monkeypatch.setattr(upload, "_LONG_BYTES", 0)
    cuts = (chunks(data, 1 << 20), [*chunks(data[:150], 1), *chunks(data[150:], 3_333)])
    one, other = [(await stream(stub, [head, *pieces])).words for pieces in cuts]
    assert len(one) == 2 * len(WORDS)
    assert one == other


async def test_text_typed_behind_the_speaker(stub):
    """The words of what was said before its text came, and offsets into the whole text."""
    pieces = [TWICE_TEXT[: len(TRANSCRIPT) + 5], TWICE_TEXT[len(TRANSCRIPT) + 5 :]]
    answer = await stream(stub, [linear16(""), *chunks(BARE), text(pieces[0]), audio(b""), text(pieces[1])])
    assert [TWICE_TEXT[word.char_start : word.char_end] for word in answer.words] == list(WORDS) * 2
    assert all(word.status == pb.WORD_STATUS_ALIGNED for word in answer.words)


async def test_text_that_was_never_said_comes_back_as_not_found(stub):
    answer = await stream(stub, [linear16(TRANSCRIPT), *chunks(samples().tobytes()), text(" And one more thing.")])
    assert [word.text for word in answer.words] == [*WORDS, "And", "one", "more", "thing"]
    assert {word.status for word in answer.words[-4:]} == {pb.WORD_STATUS_NOT_FOUND}


async def test_audio_that_stops_in_the_middle_of_a_word(stub):
    cut = samples().tobytes()[: len(samples()) + 1]
    answer = await stream(stub, [linear16(TRANSCRIPT), *chunks(cut)])
    assert len(answer.words) == len(WORDS)
    assert answer.words[0].status == pb.WORD_STATUS_ALIGNED
    assert answer.words[-1].status == pb.WORD_STATUS_NOT_FOUND
    assert max(word.end_ms for word in answer.words) <= answer.summary.audio_ms


async def test_a_client_that_vanishes_is_forgotten(server):
    async with calling(server.address) as vanishing:
        call = vanishing.StreamAlign()
        await send(call, [linear16(TWICE_TEXT), *chunks(BARE)])
        await until_words(call)
        assert server.engine._streams == 1
    await eventually(lambda: server.engine._streams == 0, "the stream to be given up")


async def test_the_process_of_a_container_ends_with_its_client(server, stub, monkeypatch):
    monkeypatch.setattr(upload, "_LONG_BYTES", 0)
    call = stub.StreamAlign()
    await send(call, [config(TWICE_TEXT), *chunks(FLAC)])
    await until_words(call)
    assert server.decoder.containers == 1
    call.cancel()
    await eventually(lambda: server.decoder.containers == 0, "the process to be given up")


async def test_streams_beyond_the_limit_are_refused_at_their_start(server, stub, monkeypatch):
    monkeypatch.setattr(server.engine, "_max_streams", 0)
    call = stub.StreamAlign()
    await send(call, [linear16(TWICE_TEXT), audio(BARE[:64_000])])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async for _ in call:
            pass
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal(refused.value).reason == "ENGINE_QUEUE_FULL"


async def test_a_wav_without_a_length(stub):
    data = bytearray(wav(samples()))
    data[4:8] = data[40:44] = bytes(4)
    answer = await stream(stub, [config(), *chunks(bytes(data))])
    assert [word.text for word in answer.words] == list(WORDS)
    assert answer.summary.audio_ms == len(samples()) // 16
    assert list(answer.summary.warnings) == []
