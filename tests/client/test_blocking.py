"""The blocking client against a real server that fails as scripted."""

from __future__ import annotations

import io
import logging
import os
import threading
from pathlib import Path

import grpc
import pytest

from aligner_client import (
    Aligner,
    AlignerClientError,
    AudioEncoding,
    CallCancelledError,
    DeadlineExceededError,
    FailedPreconditionError,
    IncompleteAnswerError,
    InternalError,
    InvalidArgumentError,
    Progress,
    ResourceExhaustedError,
    RetryPolicy,
    Stage,
    UnavailableError,
)
from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.channel import CHANNEL_OPTIONS
from aligner_svc.domain import Stretch, WordStatus
from tests.kit.scripted_aligner import MIB, Fault, scripted_server

UNAVAILABLE = Fault(grpc.StatusCode.UNAVAILABLE, "draining", "DRAINING")
NO_WAIT = RetryPolicy(initial=0.001)


@pytest.fixture
def server():
    with scripted_server() as running:
        yield running


@pytest.fixture
def aligner(server):
    with Aligner(server.target, retry=NO_WAIT) as client:
        yield client


def test_words_come_back_in_seconds(aligner, server):
    server.script.warnings = [pb.Warning(code="TRANSCRIPT_MISMATCH", message="hm")]
    alignment = aligner.align(b"RIFF", "one missing", language="de")
    assert [(w.text, w.start, w.end, w.status) for w in alignment.words] == [
        ("one", 0.0, 0.4, WordStatus.ALIGNED),
        ("missing", 0.5, 0.9, WordStatus.NOT_FOUND),
    ]
    assert (alignment.words[1].char_start, alignment.words[1].char_end) == (4, 11)
    assert (alignment.audio_seconds, alignment.engine, alignment.language) == (1.0, "scripted-1", "de")
    assert alignment.match_score == 0.75
    assert [w.code for w in alignment.warnings] == ["TRANSCRIPT_MISMATCH"]
    assert alignment.timing.total == 0.006
    assert alignment.unaligned == (Stretch(0.9, 1.0),)


def test_a_path_is_read_and_headerless_audio_is_described(aligner, server, tmp_path):
    audio = tmp_path / "speech.raw"
    audio.write_bytes(b"\0\1" * 100)
    aligner.align(audio, "one", encoding=AudioEncoding.MULAW, sample_rate_hz=8000, channels=2)
    call = server.script.calls[0]
    assert call.audio == b"\0\1" * 100
    assert (call.encoding, call.sample_rate_hz, call.channels) == (pb.AUDIO_ENCODING_MULAW, 8000, 2)


def test_a_track_is_asked_for_and_where_it_begins_is_told(aligner, server):
    server.script.audio_start_ms = 1936
    assert aligner.align(b"film", "one", audio_track=2).audio_start == 1.936
    assert aligner.stream_align(io.BytesIO(b"film"), "one", audio_track=3).audio_start == 1.936
    assert [config.audio_track for config in server.script.configs] == [2, 3]


def test_a_string_is_a_path(aligner, server, tmp_path):
    audio = tmp_path / "speech.wav"
    audio.write_bytes(b"RIFFaudio")
    aligner.align(str(audio), "one")
    aligner.stream_align(str(audio), "one")
    with aligner.stream_words(str(audio), "one") as words:
        assert [word.text for word in words] == ["one"]
    assert [call.audio for call in server.script.calls] == [b"RIFFaudio"] * 3
    with pytest.raises(FileNotFoundError):
        aligner.align("no such file", "one")


def test_a_missing_file_is_an_oserror(aligner):
    with pytest.raises(FileNotFoundError):
        aligner.align(Path("no such file"), "one")
    with pytest.raises(FileNotFoundError):
        aligner.stream_align(Path("no such file"), "one")


def test_server_info(aligner):
    info = aligner.server_info()
    assert (info.version, info.engine, info.languages) == ("9.9", "scripted-1", ("de", "en"))
    assert info.limits.unary_audio_bytes == 10 * MIB


def test_ten_mebibytes_go_up_and_more_than_four_come_back(aligner, server):
    alignment = aligner.align(bytes(10 * MIB), "word " * 200_000)
    assert len(server.script.calls[0].audio) == 10 * MIB
    assert len(alignment.words) == 200_000


def test_grpc_knows_every_channel_option():
    # A misspelled option is accepted without an error, so look for the names in the library itself.
    library = next(Path(grpc.__file__).parent.glob("*/cygrpc*")).read_bytes()
    assert [name for name, _ in CHANNEL_OPTIONS if name.encode() not in library] == []


def test_unavailable_twice_then_an_answer(aligner, server):
    server.script.faults.extend([UNAVAILABLE, UNAVAILABLE])
    assert len(aligner.align(b"x", "one two").words) == 2
    assert len(server.script.calls) == 3


def test_attempts_are_bounded(aligner, server):
    server.script.faults.extend([UNAVAILABLE] * 10)
    with pytest.raises(UnavailableError, match="draining") as raised:
        aligner.align(b"x", "one")
    assert raised.value.reason == "DRAINING"
    assert len(server.script.calls) == NO_WAIT.attempts


def test_pushback_is_obeyed(server):
    waits: list[float] = []
    policy = RetryPolicy(initial=0.001, max_retry_after=60, random=lambda: waits.append(1) or 0.0)
    server.script.faults.append(Fault(grpc.StatusCode.UNAVAILABLE, pushback_ms="1"))
    with Aligner(server.target, retry=policy) as aligner:
        assert aligner.align(b"x", "one").words
        for never in ("-1", "soon"):
            server.script.faults.append(Fault(grpc.StatusCode.UNAVAILABLE, pushback_ms=never))
            with pytest.raises(UnavailableError):
                aligner.align(b"x", "one")
        server.script.faults.append(Fault(grpc.StatusCode.UNAVAILABLE, pushback_ms="61000"))
        with pytest.raises(UnavailableError) as raised:
            aligner.align(b"x", "one")
    assert raised.value.retry_after == 61.0
    assert len(waits) == 1
    assert len(server.script.calls) == 5


def test_a_full_queue_is_retried_only_if_the_server_says_when(aligner, server):
    full = grpc.StatusCode.RESOURCE_EXHAUSTED
    server.script.faults.append(Fault(full, "queue full", "QUEUE_FULL", retry_delay=0.001))
    assert aligner.align(b"x", "one").words
    server.script.faults.append(Fault(full, "too large", "AUDIO_TOO_LARGE"))
    with pytest.raises(ResourceExhaustedError) as raised:
        aligner.align(b"x", "one")
    assert raised.value.reason == "AUDIO_TOO_LARGE"
    assert len(server.script.calls) == 3


def test_an_error_has_every_detail_of_the_status(aligner, server):
    server.script.faults.append(
        Fault(
            grpc.StatusCode.INVALID_ARGUMENT,
            "the transcript is empty",
            "EMPTY_TRANSCRIPT",
            violations=[("config.transcript", "must not be empty")],
            retry_delay=2.5,
        )
    )
    with pytest.raises(InvalidArgumentError) as raised:
        aligner.align(b"x", "")
    error = raised.value
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (error.reason, error.message, error.retry_after) == ("EMPTY_TRANSCRIPT", "the transcript is empty", 2.5)
    assert [(v.field, v.description) for v in error.violations] == [("config.transcript", "must not be empty")]
    assert str(error) == "the transcript is empty (EMPTY_TRANSCRIPT)"
    assert len(server.script.calls) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, FailedPreconditionError),
        (grpc.StatusCode.INTERNAL, InternalError),
        (grpc.StatusCode.UNKNOWN, InternalError),
        (grpc.StatusCode.CANCELLED, CallCancelledError),
        (grpc.StatusCode.ABORTED, AlignerClientError),
    ],
)
def test_every_status_has_its_class_and_a_reason_even_without_details(aligner, server, code, kind):
    server.script.faults.extend([Fault(code)] * NO_WAIT.attempts)  # CANCELLED by the server is retried
    with pytest.raises(kind) as raised:
        aligner.align(b"x", "one")
    assert type(raised.value) is kind
    assert raised.value.reason == code.name


def test_an_absent_server_is_unavailable():
    with Aligner("127.0.0.1:1", retry=NO_WAIT) as aligner, pytest.raises(UnavailableError):
        aligner.server_info()


def test_the_deadline_ends_a_call(aligner, server):
    server.script.faults.extend([Fault("HANG"), Fault("HANG")])
    with pytest.raises(DeadlineExceededError):
        aligner.align(b"x", "one", timeout=0.1)
    with pytest.raises(DeadlineExceededError):
        aligner.stream_align(io.BytesIO(b"x"), "one", timeout=0.1)


@pytest.mark.parametrize("kind", ["path", "file", "bytes", "chunks", "pipe"])
def test_a_stream_may_come_from_a_path_a_file_bytes_chunks_or_a_pipe(aligner, server, tmp_path, kind):
    audio = os.urandom(200_000)
    path = tmp_path / "speech.wav"
    path.write_bytes(audio)
    if kind == "pipe":
        read, write = os.pipe()
        threading.Thread(target=lambda: Path(f"/dev/fd/{write}").write_bytes(audio) and os.close(write)).start()
        with open(read, "rb") as pipe:  # noqa: PTH123 - a descriptor, not a path
            alignment = aligner.stream_align(pipe, "one two")
    elif kind == "file":
        with path.open("rb") as file:
            alignment = aligner.stream_align(file, "one two")
    else:
        source = {"path": path, "bytes": audio, "chunks": iter([audio[:100_000], b"", audio[100_000:]])}[kind]
        alignment = aligner.stream_align(source, "one two")
    call = server.script.calls[0]
    assert [word.text for word in alignment.words] == ["one", "two"]
    assert call.audio == audio
    assert max(call.chunks) <= 64 * 1024
    assert 0 not in call.chunks


def test_progress_is_reported(aligner):
    seen: list[Progress] = []
    aligner.stream_align(bytes(100_000), "one two", on_progress=seen.append)
    assert [p.received_bytes for p in seen if p.stage is Stage.RECEIVING] == [65536, 100_000]
    assert seen[0].audio_seconds is None
    assert seen[-1] == Progress(Stage.ALIGNING, 100_000, 0.9, 0.9)


def test_words_can_be_taken_one_by_one(aligner):
    with aligner.stream_words([b"x"], "one two three") as words:
        assert next(words).text == "one"
        assert [word.text for word in words] == ["two", "three"]
        assert len(words.alignment().words) == 3
    with aligner.stream_words([b"x"], "one two three") as words:
        assert [word.text for batch in words.batches() for word in batch] == ["one", "two", "three"]


@pytest.mark.parametrize("when", ["start", "after_upload", "after_word"])
def test_a_stream_from_a_file_is_retried_from_the_position_the_file_had(aligner, server, when):
    server.script.faults.append(Fault(grpc.StatusCode.UNAVAILABLE, when=when))
    file = io.BytesIO(b"skip" + bytes(range(256)) * 1024)
    file.seek(4)
    alignment = aligner.stream_align(file, "one two")
    assert [word.text for word in alignment.words] == ["one", "two"]
    assert server.script.calls[1].audio == bytes(range(256)) * 1024


def test_a_stream_that_cannot_be_rewound_is_not_retried(aligner, server):
    server.script.faults.append(UNAVAILABLE)
    with pytest.raises(UnavailableError):
        aligner.stream_align(iter([b"x"]), "one")
    assert len(server.script.calls) == 1


def test_a_stream_is_not_retried_once_a_word_was_returned(aligner, server):
    server.script.faults.append(Fault(grpc.StatusCode.UNAVAILABLE, when="after_word"))
    with aligner.stream_words(io.BytesIO(b"x"), "one two") as words:
        assert next(words).text == "one"
        with pytest.raises(UnavailableError):
            next(words)
    assert len(server.script.calls) == 1


def test_an_error_of_the_callers_audio_is_raised_and_nothing_is_aligned(aligner, caplog):
    def broken():
        yield b"x"
        raise ZeroDivisionError("microphone")

    with caplog.at_level(logging.DEBUG), pytest.raises(ZeroDivisionError, match="microphone"):
        aligner.stream_align(broken(), "one")
    assert "Traceback" not in caplog.text


def test_a_stream_without_a_summary_is_an_error(aligner, server):
    server.script.summary = False
    with pytest.raises(IncompleteAnswerError):
        aligner.stream_align(b"x", "one")


def test_leaving_a_stream_early_ends_it(aligner):
    with aligner.stream_words(b"x", "one two three") as words:
        next(words)
    assert list(words) == []


def test_closing_the_client_ends_a_call_with_a_typed_error(server):
    server.script.faults.append(Fault("HANG"))
    aligner = Aligner(server.target, retry=NO_WAIT)

    def close_once_called() -> None:
        server.script.arrived.acquire()
        aligner.close()

    threading.Thread(target=close_once_called).start()
    with pytest.raises(CallCancelledError):
        aligner.align(b"x", "one")
