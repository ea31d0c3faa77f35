"""The asyncio client against a real server that fails as scripted."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator

import grpc
import pytest

from aligner_client import (
    AsyncAligner,
    CallCancelledError,
    DeadlineExceededError,
    InvalidArgumentError,
    Progress,
    RetryPolicy,
    Stage,
    UnavailableError,
)
from tests.kit.scripted_aligner import MIB, Fault, scripted_server

UNAVAILABLE = Fault(grpc.StatusCode.UNAVAILABLE, "draining", "DRAINING")
NO_WAIT = RetryPolicy(initial=0.001)


@pytest.fixture
def server():
    with scripted_server() as running:
        yield running


@pytest.fixture
async def aligner(server):
    async with AsyncAligner(server.target, retry=NO_WAIT) as client:
        yield client


async def test_align_and_server_info(aligner, server, tmp_path):
    audio = tmp_path / "speech.wav"
    audio.write_bytes(bytes(10 * MIB))
    alignment = await aligner.align(audio, "one two")
    assert [word.text for word in alignment.words] == ["one", "two"]
    assert len(server.script.calls[0].audio) == 10 * MIB
    assert (await aligner.server_info()).engine == "scripted-1"


async def test_a_string_is_a_path(aligner, server, tmp_path):
    audio = tmp_path / "speech.wav"
    audio.write_bytes(b"RIFFaudio")
    await aligner.align(str(audio), "one")
    await aligner.stream_align(str(audio), "one")
    async with aligner.stream_words(str(audio), "one") as words:
        assert [word.text async for word in words] == ["one"]
    assert [call.audio for call in server.script.calls] == [b"RIFFaudio"] * 3


async def test_calls_run_side_by_side(aligner):
    alignments = await asyncio.gather(*(aligner.align(b"x", f"word{n}") for n in range(20)))
    assert [a.words[0].text for a in alignments] == [f"word{n}" for n in range(20)]


async def test_unavailable_twice_then_an_answer(aligner, server):
    server.script.faults.extend([UNAVAILABLE, UNAVAILABLE])
    assert (await aligner.align(b"x", "one")).words
    assert len(server.script.calls) == 3


async def test_errors_are_typed(aligner, server):
    server.script.faults.append(
        Fault(grpc.StatusCode.INVALID_ARGUMENT, "empty", "EMPTY_TRANSCRIPT", violations=[("config.transcript", "empty")])
    )
    with pytest.raises(InvalidArgumentError) as raised:
        await aligner.align(b"x", "")
    assert raised.value.reason == "EMPTY_TRANSCRIPT"
    assert raised.value.violations[0].field == "config.transcript"
    server.script.faults.append(Fault("HANG"))
    with pytest.raises(DeadlineExceededError):
        await aligner.align(b"x", "one", timeout=0.1)


@pytest.mark.parametrize("kind", ["path", "file", "chunks", "async"])
async def test_a_stream_may_come_from_a_path_a_file_or_chunks(aligner, server, tmp_path, kind):
    audio = os.urandom(200_000)
    path = tmp_path / "speech.wav"
    path.write_bytes(audio)

    async def chunks() -> AsyncIterator[bytes]:
        yield audio[:150_000]
        yield b""
        yield audio[150_000:]

    sources = {"path": path, "file": io.BytesIO(audio), "chunks": [audio[:7], audio[7:]], "async": chunks()}
    seen: list[Progress] = []
    alignment = await aligner.stream_align(sources[kind], "one two", on_progress=seen.append)
    call = server.script.calls[0]
    assert [word.text for word in alignment.words] == ["one", "two"]
    assert call.audio == audio
    assert max(call.chunks) <= 64 * 1024
    assert seen[0].stage is Stage.RECEIVING
    assert seen[-1].aligned_seconds == 0.9


async def test_words_can_be_taken_one_by_one(aligner):
    async with aligner.stream_words([b"x"], "one two three") as words:
        assert (await anext(words)).text == "one"
        assert [word.text async for word in words] == ["two", "three"]
        assert len((await words.alignment()).words) == 3
    async with aligner.stream_words([b"x"], "one two three") as words:
        assert [word.text async for batch in words.batches() for word in batch] == ["one", "two", "three"]


@pytest.mark.parametrize("when", ["start", "after_upload", "after_word"])
async def test_a_stream_from_a_file_is_retried_from_its_start(aligner, server, when):
    server.script.faults.append(Fault(grpc.StatusCode.UNAVAILABLE, when=when))
    audio = bytes(range(256)) * 1024
    alignment = await aligner.stream_align(io.BytesIO(audio), "one two")
    assert [word.text for word in alignment.words] == ["one", "two"]
    assert server.script.calls[1].audio == audio


async def test_a_stream_is_not_retried_if_it_cannot_be_rewound_or_a_word_was_returned(aligner, server):
    server.script.faults.append(UNAVAILABLE)
    with pytest.raises(UnavailableError):
        await aligner.stream_align(iter([b"x"]), "one")
    server.script.faults.append(Fault(grpc.StatusCode.UNAVAILABLE, when="after_word"))
    async with aligner.stream_words(b"x", "one two") as words:
        await anext(words)
        with pytest.raises(UnavailableError):
            await anext(words)
    assert len(server.script.calls) == 2


async def test_a_refused_upload_has_the_status_of_the_server(aligner, server):
    # grpc.aio would show some of these as INTERNAL "Internal error from Core".
    refusal = Fault(grpc.StatusCode.INVALID_ARGUMENT, "no", "EMPTY_TRANSCRIPT", violations=[("config.transcript", "empty")])
    server.script.faults.extend([refusal] * 60)
    for _ in range(60):
        with pytest.raises(InvalidArgumentError) as raised:
            await aligner.stream_align(bytes(MIB), "one")
        assert raised.value.reason == "EMPTY_TRANSCRIPT"


async def test_an_error_of_the_callers_audio_is_raised(aligner):
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ZeroDivisionError("microphone")

    with pytest.raises(ZeroDivisionError, match="microphone"):
        await aligner.stream_align(broken(), "one")


@pytest.mark.parametrize("method", ["align", "stream_align"])
async def test_cancelling_the_task_is_a_cancellation_and_closing_the_client_a_typed_error(aligner, server, method):
    server.script.faults.extend([Fault("HANG"), Fault("HANG")])
    task = asyncio.create_task(getattr(aligner, method)(b"x", "one"))
    await asyncio.to_thread(server.script.arrived.acquire)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    task = asyncio.create_task(getattr(aligner, method)(b"x", "one"))
    await asyncio.to_thread(server.script.arrived.acquire)
    await aligner.close()
    with pytest.raises(CallCancelledError):
        await task
