"""The asyncio client: what `blocking.py` is, for an event loop."""

# ruff: noqa: ASYNC109 - these timeouts bound the retries as well and travel to the server as the deadline

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from os import PathLike
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

import grpc

from aligner_svc.api.v1 import aligner_pb2 as pb
from aligner_svc.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_svc.client.aio_source import AsyncSource, open_async_source
from aligner_svc.client.aio_status import ServerStatus
from aligner_svc.client.authorization import AsyncAuthorization, AsyncShowing
from aligner_svc.client.channel import DEFAULT_TARGET, INFO_TIMEOUT, STREAM_TIMEOUT, UNARY_TIMEOUT, choose_transport
from aligner_svc.client.credentials import Auth, Metadata, Tls
from aligner_svc.client.errors import AlignerClientError, from_rpc, raise_if_not_this_task
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
from aligner_svc.client.source import read_whole
from aligner_svc.domain import Alignment, Word

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Call = grpc.aio.StreamStreamCall[pb.StreamAlignRequest, pb.StreamAlignResponse]
_OpenCall = Callable[[AsyncIterator[pb.StreamAlignRequest], float | None, Metadata], _Call]


class AsyncAligner:
    """`Aligner` for asyncio: the same calls, errors and timeouts, awaited. Make it inside the running loop that uses it.

        async with AsyncAligner("127.0.0.1:50051") as aligner:
            alignment = await aligner.align(Path("speech.wav"), "what was said")

    One instance serves any number of concurrent calls over one connection. Files are read
    on threads; cancelling a task cancels its call on the server too.
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
            grpc.aio.insecure_channel(target, transport.options)
            if transport.credentials is None
            else grpc.aio.secure_channel(target, transport.credentials, transport.options)
        )
        self._stub = AlignerStub(self._channel)
        self._authorization = AsyncAuthorization(auth)
        self._policy = retry or RetryPolicy()

    async def align(
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
        """As `Aligner.align`."""
        config = build_config(transcript, language, encoding, sample_rate_hz, channels)
        data, digest = await asyncio.to_thread(read_whole, audio)
        request = pb.AlignRequest(config=declaring(config, digest), audio=data)
        return read_response(await self._call(self._stub.Align, request, timeout))

    async def stream_align(
        self,
        audio: bytes | str | PathLike[str] | BinaryIO | Iterable[bytes] | AsyncIterable[bytes],
        transcript: str,
        *,
        language: str = "en",
        encoding: AudioEncoding = AudioEncoding.CONTAINER,
        sample_rate_hz: int = 0,
        channels: int = 0,
        timeout: float | None = STREAM_TIMEOUT,
        on_progress: ProgressCallback | None = None,
    ) -> Alignment:
        """As `Aligner.stream_align`; chunks may come from an async iterable too. `on_progress` must not block."""
        async with self.stream_words(
            audio,
            transcript,
            language=language,
            encoding=encoding,
            sample_rate_hz=sample_rate_hz,
            channels=channels,
            timeout=timeout,
            on_progress=on_progress,
        ) as words:
            return await words.alignment()

    def stream_words(
        self,
        audio: bytes | str | PathLike[str] | BinaryIO | Iterable[bytes] | AsyncIterable[bytes],
        transcript: str,
        *,
        language: str = "en",
        encoding: AudioEncoding = AudioEncoding.CONTAINER,
        sample_rate_hz: int = 0,
        channels: int = 0,
        timeout: float | None = STREAM_TIMEOUT,
        on_progress: ProgressCallback | None = None,
    ) -> AsyncWordStream:
        """As `Aligner.stream_words`: `async with`, `async for`, `await words.alignment()`."""
        config = build_config(transcript, language, encoding, sample_rate_hz, channels)
        return AsyncWordStream(
            lambda requests, left, shown: self._stub.StreamAlign(requests, timeout=left, metadata=self._metadata + shown),
            config,
            open_async_source(audio),
            retry=self._policy.begin(timeout),
            showing=self._authorization.begin(),
            answer=StreamAnswer(on_progress),
        )

    async def server_info(self, *, timeout: float | None = INFO_TIMEOUT) -> ServerInfo:
        """What the server runs and accepts."""
        return read_server_info(await self._call(self._stub.GetServerInfo, pb.GetServerInfoRequest(), timeout))

    async def close(self) -> None:
        """End calls in flight and the connection. Idempotent."""
        self._authorization.close()
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response], request: _Request, timeout: float | None
    ) -> _Response:
        retry = self._policy.begin(timeout)
        showing = self._authorization.begin()
        while True:
            metadata = self._metadata + await showing.metadata(retry)
            call: Awaitable[_Response] = method(request, timeout=retry.remaining(), metadata=metadata)
            try:
                return await call
            except asyncio.CancelledError:
                raise_if_not_this_task()
                raise
            except grpc.RpcError as error:
                failure = from_rpc(error)
                delay = 0.0 if showing.renews(failure) else retry.delay(failure)
                if delay is None:
                    raise failure from error
            await asyncio.sleep(delay)


class AsyncWordStream(AsyncIterator[Word]):
    """The words of one stream, in order and final. One pass, one task; close it, or use it as an async context manager."""

    def __init__(
        self,
        open_call: _OpenCall,
        config: pb.AlignConfig,
        source: AbstractContextManager[AsyncSource],
        *,
        retry: Retry,
        showing: AsyncShowing,
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

    async def __anext__(self) -> Word:
        return await anext(self._words)

    async def alignment(self) -> Alignment:
        """Wait for the words still to come and return the whole answer. May be called with no word read, or some, or all."""
        async for _ in self._batches:
            pass
        return self._answer.alignment()

    async def close(self) -> None:
        """End the call if it still runs. Idempotent."""
        await self._words.aclose()
        await self._batches.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _hand_out(self) -> AsyncGenerator[Word, None]:
        async for batch in self._batches:
            for word in batch:
                self._handed_out = True
                yield word

    async def _receive(self) -> AsyncGenerator[Sequence[Word], None]:
        with self._source as source:
            config = declaring(self._config, await source.digest())
            while True:
                metadata = await self._showing.metadata(self._retry)
                upload = _Upload(config, source.start())
                call = self._open_call(upload.requests(), self._retry.remaining(), metadata)
                status = ServerStatus(call)
                try:
                    async for response in call:
                        yield self._answer.feed(response)
                    self._answer.alignment()
                    return
                except asyncio.CancelledError:
                    if upload.error is not None:
                        raise upload.error from None
                    raise_if_not_this_task()
                    raise
                except grpc.RpcError as error:
                    failure = from_rpc(await status.behind(error))
                    delay = self._delay(failure) if source.rewindable and not self._handed_out else None
                    if delay is None:
                        raise failure from error
                finally:
                    call.cancel()
                self._answer.reset()
                await asyncio.sleep(delay)

    def _delay(self, failure: AlignerClientError) -> float | None:
        return 0.0 if self._showing.renews(failure) else self._retry.delay(failure)


class _Upload:
    """The requests of one attempt. grpc.aio iterates them in a task of its own."""

    def __init__(self, config: pb.AlignConfig, chunks: AsyncIterator[bytes]) -> None:
        self._config = config
        self._chunks = chunks
        self.error: Exception | None = None
        """What the caller's audio failed with."""

    async def requests(self) -> AsyncIterator[pb.StreamAlignRequest]:
        yield pb.StreamAlignRequest(config=self._config)
        try:
            async for chunk in self._chunks:
                yield pb.StreamAlignRequest(audio=chunk)
        except Exception as error:
            # grpc.aio logs it at debug level and cancels the call, which `_receive` sees.
            self.error = error
            raise
