"""StreamAlign: the audio in chunks, progress on the way, the same words, the summary last."""

from __future__ import annotations

import asyncio
from itertools import zip_longest

import pytest

from aligner_client import Aligner, AsyncAligner, Progress, Stage
from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.engines.pocketsphinx.languages import table
from tests.kit import recordings, uploads
from tests.kit.recordings import SAMPLE, SPEECH, TRANSCRIPT, WORDS, samples
from tests.kit.uploads import audio, chunks, config, linear16, stream, text


async def whole(stub) -> pb.AlignResponse:
    return await stub.Align(pb.AlignRequest(config=pb.AlignConfig(transcript=TRANSCRIPT, language="en"), audio=SPEECH))


async def test_progress_then_words_in_order_then_the_summary(stub):
    answer = await stream(stub, [config(), *chunks()])
    kinds = answer.kinds
    assert kinds == sorted(kinds, key=["progress", "words", "summary"].index)
    assert kinds[-1] == "summary"
    stages = [progress.stage for progress in answer.progress]
    assert stages == sorted(stages)
    assert stages[0] == pb.Progress.STAGE_RECEIVING
    assert stages[-1] == pb.Progress.STAGE_ALIGNING
    assert answer.progress[-1].received_bytes == len(SPEECH)
    assert answer.progress[-1].audio_ms == answer.summary.audio_ms
    assert [word.text for word in answer.words] == list(WORDS)


async def test_the_words_are_those_of_align(stub):
    expected, answer = await whole(stub), await stream(stub, [config(), *chunks()])
    assert answer.words == list(expected.words)
    for name in ("audio_ms", "engine", "language", "match_score", "warnings"):
        assert getattr(answer.summary, name) == getattr(expected.summary, name)


@pytest.mark.parametrize("size", [997, 1 << 20], ids=["of 997 bytes", "one of 1 MiB at most"])
async def test_where_the_chunks_are_cut_does_not_matter(stub, size):
    answer = await stream(stub, [config(), *chunks(size=size)])
    assert answer.words == list((await whole(stub)).words)


async def test_headerless_samples_cut_in_the_middle_of_one(stub):
    answer = await stream(stub, [linear16(), *chunks(samples().tobytes(), 32_001)])
    assert answer.words == list((await whole(stub)).words)


async def test_the_transcript_may_come_in_pieces_between_the_audio(stub):
    pieces = [text(TRANSCRIPT[at : at + 10]) for at in range(0, len(TRANSCRIPT), 10)]  # cut inside words too
    between = zip_longest(chunks(size=16 * 1024), pieces)
    requests = [config(""), *(message for pair in between for message in pair if message is not None)]
    answer = await stream(stub, requests)
    assert answer.words == list((await whole(stub)).words)
    assert [TRANSCRIPT[word.char_start : word.char_end] for word in answer.words] == list(WORDS)


async def test_text_in_the_config_and_after_it_is_one_text(stub):
    head, tail = TRANSCRIPT[:31], TRANSCRIPT[31:]
    answer = await stream(stub, [config(head), *chunks(), text(tail)])
    assert answer.words == list((await whole(stub)).words)


async def test_empty_pieces_are_harmless(stub):
    answer = await stream(stub, [config(), text(""), audio(b""), *chunks(), audio(b"")])
    assert [word.text for word in answer.words] == list(WORDS)


async def test_a_large_upload_reports_progress_while_it_runs(stub):
    """A sender that pauses knows what has arrived."""
    call = stub.StreamAlign()
    silence = bytes(1 << 20)
    messages = aiter(call)
    await uploads.send(call, [linear16("words"), audio(silence)])
    first = await anext(messages)
    await call.write(audio(silence))
    second = await anext(messages)
    assert [first.progress.stage, second.progress.stage] == [pb.Progress.STAGE_RECEIVING] * 2
    assert [first.progress.received_bytes, second.progress.received_bytes] == [1 << 20, 2 << 20]
    call.cancel()


async def test_words_of_a_long_recording_are_in_order(stub):
    data, transcript = recordings.repeated(6)
    answer = await stream(stub, [config(transcript), *chunks(data)])
    assert [word.text for word in answer.words] == list(WORDS) * 6
    ends = [0, *(time for word in answer.words for time in (word.start_ms, word.end_ms))]
    assert ends == sorted(ends)
    aligned = [progress.aligned_ms for progress in answer.progress]
    assert aligned == sorted(aligned)
    assert aligned[-1] > 0


async def test_streams_at_once_get_what_each_gets_alone(stub):
    expected = list((await whole(stub)).words)
    answers = await asyncio.gather(*(stream(stub, [config(), *chunks(size=1000 * (n + 1))]) for n in range(4)))
    assert [answer.words for answer in answers] == [expected] * 4


async def test_the_blocking_client(server, stub):
    reported: list[Progress] = []

    def align():
        with Aligner(server.address) as aligner:
            return aligner.align(SAMPLE, TRANSCRIPT), aligner.stream_align(SAMPLE, TRANSCRIPT, on_progress=reported.append)

    unary, streamed = await asyncio.to_thread(align)
    assert unary.words == streamed.words
    assert [round(word.start * 1000) for word in unary.words] == [word.start_ms for word in (await whole(stub)).words]
    assert {progress.stage for progress in reported} >= {Stage.RECEIVING, Stage.ALIGNING}


async def test_the_asyncio_client(server):
    async with AsyncAligner(server.address) as aligner:
        unary = await aligner.align(SAMPLE, TRANSCRIPT)
        async with aligner.stream_words(SAMPLE, TRANSCRIPT) as stream_words:
            words = [word async for word in stream_words]
        assert (await aligner.server_info()).languages == tuple(sorted({"en", *table.served("measured")}))
    assert list(unary.words) == words
