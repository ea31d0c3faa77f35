"""The blocking client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from os import PathLike
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

import grpc

from aligner_svc.api.v1 import aligner_pb2 as pb
from aligner_svc.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_svc.client.authorization import Authorization, Showing
from aligner_svc.client.channel import DEFAULT_TARGET, INFO_TIMEOUT, STREAM_TIMEOUT, UNARY_TIMEOUT, choose_transport
from aligner_svc.client.credentials import Auth, Metadata, Tls
from aligner_svc.client.errors import AlignerClientError, from_rpc
from aligner_svc.client.messages import (
    AudioEncoding,
    ProgressCallback,
    ServerInfo,
    StreamAnswer,
    build_config,
    declaring,
    read_response,
    read_server_info,
)
from aligner_svc.client.retry import Retry, RetryPolicy
from aligner_svc.client.source import Read, Source, open_source, read_whole
from aligner_svc.domain import Alignment, Word

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

# grpc's own type for it is private to its stubs.
_OpenCall = Callable[[Iterator[pb.StreamAlignRequest], float | None, Metadata], Any]


class Aligner:
    """Calls an aligner server; blocks. Safe to share between threads.

        with Aligner("127.0.0.1:50051") as aligner:
            alignment = aligner.align(Path("speech.wav"), "what was said")

    Every call raises a subclass of AlignerClientError, after the retries `retry` allows, and
    OSError where an audio file cannot be read. `timeout` is in seconds for the whole call,
    retries and waits included; None waits for ever. Without `tls` (or `credentials`, which are
    gRPC's own) the connection is plaintext: loopback only, and with `auth` elsewhere refused
    with a CredentialsError, as a secret must not travel in clear. `auth` says who calls; the
    current token goes with every attempt, and where the server finds that one fetched by
    ClientCredentials no longer good, the call is tried once more with a fresh one. `metadata`
    goes with every call as it is.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        tls: Tls | None = None,
        auth: Auth | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        retry: RetryPolicy | None = None,
    ) -> None:
        self._metadata = tuple(metadata)
        transport = choose_transport(target, credentials, tls, auth, self._metadata)
        self._channel = (
            grpc.insecure_channel(target, transport.options)
            if transport.credentials is None
            else grpc.secure_channel(target, transport.credentials, transport.options)
        )
        self._stub = AlignerStub(self._channel)
        self._authorization = Authorization(auth)
        self._policy = retry or RetryPolicy()

    def align(
        self,
        audio: bytes | str | PathLike[str],
        transcript: str,
        *,
        language: str = "en",
        encoding: AudioEncoding = AudioEncoding.CONTAINER,
        sample_rate_hz: int = 0,
        channels: int = 0,
        timeout: float | None = UNARY_TIMEOUT,
    ) -> Alignment:
        """Align one recording sent whole: a path, or the bytes. Larger than `server_info().limits` allows: `stream_align`.

        `sample_rate_hz` and `channels` (0: one) are for headerless encodings.
        """
        config = build_config(transcript, language, encoding, sample_rate_hz, channels)
        data, digest = read_whole(audio)
        request = pb.AlignRequest(config=declaring(config, digest), audio=data)
        return read_response(self._call(self._stub.Align, request, timeout))

    def stream_align(
        self,
        audio: bytes | str | PathLike[str] | BinaryIO | Iterable[bytes],
        transcript: str,
        *,
        language: str = "en",
        encoding: AudioEncoding = AudioEncoding.CONTAINER,
        sample_rate_hz: int = 0,
        channels: int = 0,
        timeout: float | None = STREAM_TIMEOUT,
        on_progress: ProgressCallback | None = None,
    ) -> Alignment:
        """Align one recording sent in chunks: a path, an open binary file (from where it stands), or chunks of bytes.

        Nothing is read whole, but a path twice: the server is told its size and digest first, so that an upload
        which was cut short is refused and not aligned. Retried only where the audio can be rewound. `on_progress` is
        called on this thread; after a retry it starts over.
        """
        with self.stream_words(
            audio,
            transcript,
            language=language,
            encoding=encoding,
            sample_rate_hz=sample_rate_hz,
            channels=channels,
            timeout=timeout,
            on_progress=on_progress,
        ) as words:
            return words.alignment()

    def stream_words(
        self,
        audio: bytes | str | PathLike[str] | BinaryIO | Iterable[bytes],
        transcript: str,
        *,
        language: str = "en",
        encoding: AudioEncoding = AudioEncoding.CONTAINER,
        sample_rate_hz: int = 0,
        channels: int = 0,
        timeout: float | None = STREAM_TIMEOUT,
        on_progress: ProgressCallback | None = None,
    ) -> WordStream:
        """As `stream_align`, word by word as the server finds them, while the upload still runs.

            with aligner.stream_words(microphone, text) as words:
                for word in words: ...
                summary = words.alignment()

        Not retried once a word was handed out. Leaving the `with` block ends the call.
        """
        config = build_config(transcript, language, encoding, sample_rate_hz, channels)
        return WordStream(
            lambda requests, left, shown: self._stub.StreamAlign(requests, timeout=left, metadata=self._metadata + shown),
            config,
            open_source(audio),
            retry=self._policy.begin(timeout),
            showing=self._authorization.begin(),
            answer=StreamAnswer(on_progress),
        )

    def server_info(self, *, timeout: float | None = INFO_TIMEOUT) -> ServerInfo:
        """What the server runs and accepts."""
        return read_server_info(self._call(self._stub.GetServerInfo, pb.GetServerInfoRequest(), timeout))

    def close(self) -> None:
        """End calls in flight and the connection. Idempotent."""
        self._authorization.close()
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _call(
        self, method: grpc.UnaryUnaryMultiCallable[_Request, _Response], request: _Request, timeout: float | None
    ) -> _Response:
        retry = self._policy.begin(timeout)
        showing = self._authorization.begin()
        while True:
            metadata = self._metadata + showing.metadata(retry)
            try:
                return method(request, timeout=retry.remaining(), metadata=metadata)
            except grpc.RpcError as error:
                failure = from_rpc(error)
                delay = 0.0 if showing.renews(failure) else retry.delay(failure)
                if delay is None:
                    raise failure from error
            time.sleep(delay)


class WordStream(Iterator[Word]):
    """The words of one stream, in order and final. One pass, one thread; close it, or use it as a context manager."""

    def __init__(
        self,
        open_call: _OpenCall,
        config: pb.AlignConfig,
        source: AbstractContextManager[Source],
        *,
        retry: Retry,
        showing: Showing,
        answer: StreamAnswer,
    ) -> None:
        self._open_call = open_call
        self._config = config
        self._source = source
        self._retry = retry
        self._showing = showing
        self._answer = answer
        self._handed_out = False
        self._batches = self._receive()
        self._words = self._hand_out()

    def __next__(self) -> Word:
        return next(self._words)

    def alignment(self) -> Alignment:
        """Wait for the words still to come and return the whole answer. May be called with no word read, or some, or all."""
        for _ in self._batches:
            pass
        return self._answer.alignment()

    def close(self) -> None:
        """End the call if it still runs. Idempotent."""
        self._batches.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _hand_out(self) -> Iterator[Word]:
        for batch in self._batches:
            for word in batch:
                self._handed_out = True
                yield word

    def _receive(self) -> Any:
        with self._source as source:
            config = declaring(self._config, source.digest())
            while True:
                metadata = self._showing.metadata(self._retry)
                upload = _Upload(config, source.start())
                call = self._open_call(upload.requests(), self._retry.remaining(), metadata)
                upload.attach(call)
                try:
                    for response in call:
                        yield self._answer.feed(response)
                    self._answer.alignment()
                    return
                except grpc.RpcError as error:
                    if upload.error is not None:
                        raise upload.error from None
                    failure = from_rpc(error)
                    delay = self._delay(failure) if source.rewindable and not self._handed_out else None
                    if delay is None:
                        raise failure from error
                finally:
                    call.cancel()
                self._answer.reset()
                time.sleep(delay)

    def _delay(self, failure: AlignerClientError) -> float | None:
        return 0.0 if self._showing.renews(failure) else self._retry.delay(failure)


class _Upload:
    """The requests of one attempt. gRPC iterates them on a thread of its own."""

    def __init__(self, config: pb.AlignConfig, read: Read) -> None:
        self._config = config
        self._read = read
        self._call: grpc.Call | None = None
        self._attached = threading.Event()
        self.error: Exception | None = None
        """What the caller's audio failed with."""

    def attach(self, call: grpc.Call) -> None:
        self._call = call
        self._attached.set()

    def requests(self) -> Iterator[pb.StreamAlignRequest]:
        yield pb.StreamAlignRequest(config=self._config)
        try:
            while chunk := self._read():
                yield pb.StreamAlignRequest(audio=chunk)
        except Exception as error:
            # Returning would half-close, and the server would align the part it has; raising
            # would make gRPC log a traceback and report UNKNOWN. So: cancel, and keep the cause.
            self.error = error
            self._attached.wait()
            if self._call is not None:
                self._call.cancel()
