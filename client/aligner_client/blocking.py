"""The blocking client."""

# long: the public class, with the documentation of its arguments
from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_client.attempts import Attempts
from aligner_client.base import ClientBase, is_too_large
from aligner_client.channel import INFO_TIMEOUT, STREAM_TIMEOUT, UNARY_TIMEOUT, Timeout, Transport
from aligner_client.errors import ResourceExhaustedError
from aligner_client.messages import (
    AudioEncoding,
    Detail,
    Encoding,
    ProgressCallback,
    ServerInfo,
    StreamAnswer,
    Transcript,
    build_config,
    declare,
    read_response,
    read_server_info,
)
from aligner_client.retiming import Retiming, TranscriptFormat, TranscriptFormatLike
from aligner_client.source import Audio, Read, Source, StreamAudio, known_size, open_source, read_whole

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on
from aligner_client.alignment import Alignment, Word

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class Aligner(ClientBase):
    """A client of an aligner server; blocks. Safe to share between threads.

        with Aligner("127.0.0.1:50051") as aligner:
            alignment = aligner.align(Path("speech.wav"), "what was said")

    Calls raise a subclass of AlignerClientError, after the retries that `retry` allows, and OSError for an audio file that
    cannot be read. `timeout` is in seconds for the whole call with its retries and waits; None: no limit. Without `tls` (or
    gRPC's own `credentials`) the connection is plaintext; with `auth` and a target off loopback that raises CredentialsError,
    as a secret must not be sent in clear. `auth` authenticates each attempt with its current token; if the server refuses a
    token of ClientCredentials as no longer valid, the call is tried once more with a fresh one. `metadata` is sent with
    every call.

    `options` are gRPC channel options, in place of this client's own of the same name; `interceptors` gRPC's client interceptors,
    which see every attempt; `compression` that of requests; `load_balancing` gRPC's policy for a name with several addresses
    (None: round_robin, and pick_first on this machine).
    Failed attempts that are repeated are logged (logger "aligner_client", level INFO).
    """

    def _open(self, transport: Transport) -> None:
        self._channel = grpc.intercept_channel(transport.channel(), *self._interceptors)
        self._stub = AlignerStub(self._channel)

    def align(
        self,
        audio: StreamAudio,
        transcript: Transcript,
        *,
        language: str = "en",
        encoding: Encoding = AudioEncoding.CONTAINER,
        sample_rate_hz: int = 0,
        channels: int = 0,
        audio_track: int = 0,
        min_match_score: float | None = None,
        transcript_format: TranscriptFormatLike = TranscriptFormat.PLAIN,
        retiming: Retiming | None = None,
        detail: Detail = "words",
        pronunciations: Mapping[str, str] | None = None,
        timeout: Timeout = "auto",
        on_progress: ProgressCallback | None = None,
    ) -> Alignment:
        """Align one recording: a path, the bytes, an open binary file (from its current position), or chunks of bytes.

        Sent in one message if it is known to fit into one (10 MiB, or what the server allows), else in chunks, as `stream_align`
        does; only then is `on_progress` called. `encoding` says what the bytes are: an AudioEncoding or its value, "linear16" for
        example; `sample_rate_hz` and `channels` (0: one) are for headerless ones, `audio_track` (from 1; 0: the server chooses)
        for files with several tracks. With `min_match_score` (0..1), a transcript that matches less raises
        AlignerClientError, reason MATCH_SCORE_TOO_LOW. With a `transcript_format` ("srt", "vtt", "ass") the transcript is a whole
        subtitle file, and the answer's `cues` and `retimed()` have its right times, which keep to `retiming`. A `transcript` for
        each channel, {0: agent, 1: caller}, aligns them apart: each word of the answer has its `channel`.
        `timeout`: "auto" is 10 minutes for one message and 5 hours for chunks.
        """
        config = build_config(
            transcript,
            language,
            encoding,
            sample_rate_hz,
            channels,
            audio_track,
            min_match_score,
            transcript_format,
            retiming,
            detail,
            pronunciations,
        )
        size = known_size(audio)
        if size is not None and size <= self._whole_bytes:
            data, digest = read_whole(cast("Audio", audio))
            declare(config, digest)
            request = pb.AlignRequest(config=config, audio=data)
            try:
                answer = self._call(self._stub.Align, request, UNARY_TIMEOUT if timeout == "auto" else timeout)
                return read_response(answer, config)
            except ResourceExhaustedError as error:
                if not is_too_large(error):
                    raise
                self._whole_bytes = self.server_info().limits.unary_audio_bytes
                if digest.size <= self._whole_bytes:
                    raise
        with self._stream(audio, config, STREAM_TIMEOUT if timeout == "auto" else timeout, on_progress) as words:
            return words.alignment()

    def stream_align(
        self,
        audio: StreamAudio,
        transcript: Transcript,
        *,
        language: str = "en",
        encoding: Encoding = AudioEncoding.CONTAINER,
        sample_rate_hz: int = 0,
        channels: int = 0,
        audio_track: int = 0,
        min_match_score: float | None = None,
        timeout: float | None = STREAM_TIMEOUT,
        on_progress: ProgressCallback | None = None,
    ) -> Alignment:
        """Align one recording sent in chunks: a path, an open binary file (from its current position), or chunks of bytes.

        Nothing is loaded whole, but a path is read twice: the server first gets its size and digest, so that it refuses an
        upload that was cut short. Retried only if the audio can be rewound. `on_progress` is called on this thread; after
        a retry it starts over.
        """
        config = build_config(transcript, language, encoding, sample_rate_hz, channels, audio_track, min_match_score)
        with self._stream(audio, config, timeout, on_progress) as words:
            return words.alignment()

    def stream_words(
        self,
        audio: StreamAudio,
        transcript: Transcript,
        *,
        language: str = "en",
        encoding: Encoding = AudioEncoding.CONTAINER,
        sample_rate_hz: int = 0,
        channels: int = 0,
        audio_track: int = 0,
        min_match_score: float | None = None,
        timeout: float | None = STREAM_TIMEOUT,
        on_progress: ProgressCallback | None = None,
    ) -> WordStream:
        """`stream_align`, word by word as the server finds them, while the upload still runs.

            with aligner.stream_words(microphone, text) as words:
                for word in words: ...
                summary = words.alignment()

        `words.batches()` gives those that became final together. Not retried once a word was returned. Leaving the `with` block
        ends the call.
        """
        config = build_config(transcript, language, encoding, sample_rate_hz, channels, audio_track, min_match_score)
        return self._stream(audio, config, timeout, on_progress)

    def server_info(self, *, timeout: float | None = INFO_TIMEOUT) -> ServerInfo:
        """The server's version, engine, languages and limits."""
        return read_server_info(self._call(self._stub.GetServerInfo, pb.GetServerInfoRequest(), timeout))

    def close(self) -> None:
        """End the connection, and calls in flight, with CallCancelledError, as all later calls do. Idempotent."""
        self._end_waits()
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stream(
        self, audio: StreamAudio, config: pb.AlignConfig, timeout: float | None, on_progress: ProgressCallback | None
    ) -> WordStream:
        attempts, answer = self._begin(timeout), StreamAnswer(config, on_progress)
        return WordStream(self._stub.StreamAlign, config, open_source(audio), attempts, answer)

    def _call(
        self, method: grpc.UnaryUnaryMultiCallable[_Request, _Response], request: _Request, timeout: float | None
    ) -> _Response:
        attempts = self._begin(timeout)
        while True:
            metadata = attempts.metadata()
            try:
                return attempts.call(method, request, metadata)
            except grpc.RpcError as error:
                delay = attempts.failed(error)
            time.sleep(delay)


class WordStream(Iterator[Word]):
    """The words of one stream, in order and final. One pass, one thread; close it, or use it as a context manager."""

    def __init__(
        self,
        method: grpc.StreamStreamMultiCallable[pb.StreamAlignRequest, pb.StreamAlignResponse],
        config: pb.AlignConfig,
        source: AbstractContextManager[Source],
        attempts: Attempts,
        answer: StreamAnswer,
    ) -> None:
        self._method = method
        self._config = config
        self._source = source
        self._attempts = attempts
        self._answer = answer
        self._word_read = False
        self._batches = self._receive()
        self._words = self._read_words()

    def __next__(self) -> Word:
        return next(self._words)

    def batches(self) -> Iterator[Sequence[Word]]:
        """The words as the server sends them: those that became final together."""
        for batch in self._batches:
            if batch:
                self._word_read = True
                yield batch

    def alignment(self) -> Alignment:
        """Wait for the remaining words and return the whole answer, however many words were read before."""
        for _ in self._batches:
            pass
        return self._answer.alignment()

    def close(self) -> None:
        """End the call if it still runs. Idempotent."""
        self._batches.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_words(self) -> Iterator[Word]:
        for batch in self.batches():
            yield from batch

    def _receive(self) -> Any:
        with self._source as source:
            declare(self._config, source.digest())
            while True:
                metadata = self._attempts.metadata()
                upload = _Upload(self._config, source.start())
                call = self._attempts.call(self._method, upload.requests(), metadata)
                upload.attach(call)
                try:
                    for response in call:
                        yield self._answer.feed(response)
                    self._answer.alignment()
                    return
                except grpc.RpcError as error:
                    if upload.error is not None:
                        raise upload.error from None
                    delay = self._attempts.failed(error, final=self._word_read or not source.rewindable)
                finally:
                    call.cancel()
                self._answer.reset()
                time.sleep(delay)


class _Upload:
    """The requests of one attempt, which gRPC iterates on a thread of its own."""

    def __init__(self, config: pb.AlignConfig, read: Read) -> None:
        self._config = config
        self._read = read
        self._call: grpc.Call | None = None
        self._attached = threading.Event()
        self.error: Exception | None = None
        """The error of the caller's audio."""

    def attach(self, call: grpc.Call) -> None:
        self._call = call
        self._attached.set()

    def requests(self) -> Iterator[pb.StreamAlignRequest]:
        yield pb.StreamAlignRequest(config=self._config)
        try:
            while chunk := self._read():
                yield pb.StreamAlignRequest(audio=chunk)
        except Exception as error:
            # Cancel and keep the cause: returning would half-close, and the server would align the part it has;
            # raising would make gRPC log a traceback and report UNKNOWN.
            self.error = error
            self._attached.wait()
            if self._call is not None:
                self._call.cancel()
