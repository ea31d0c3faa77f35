"""The asyncio client: `blocking.py` for an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar, cast

import grpc

from aligner_client.aio_status import ServerStatus
from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_client.attempts import Attempts
from aligner_client.base import ClientBase, is_too_large
from aligner_client.channel import INFO_TIMEOUT, STREAM_TIMEOUT, UNARY_TIMEOUT, Timeout, Transport
from aligner_client.errors import ResourceExhaustedError, raise_unless_task_cancelled
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
from aligner_client.source import AsyncSource, AsyncStreamAudio, Audio, known_size, open_async_source, read_whole

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on
from aligner_client.alignment import Alignment, Word

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class AsyncAligner(ClientBase):
    """`Aligner` for asyncio: the same calls, errors and timeouts. Make it inside the running loop that uses it.

        async with AsyncAligner("127.0.0.1:50051") as aligner:
            alignment = await aligner.align(Path("speech.wav"), "what was said")

    One instance serves any number of concurrent calls over one connection. Files are read on threads; cancelling a task
    cancels its call on the server too.
    """

    def _open(self, transport: Transport) -> None:
        self._channel = transport.async_channel(self._interceptors)
        self._stub = AlignerStub(self._channel)

    async def align(
        self,
        audio: AsyncStreamAudio,
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
        """`Aligner.align`; chunks may come from an async iterable too. `on_progress` must not block."""
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
        size = await asyncio.to_thread(known_size, audio)
        if size is not None and size <= self._whole_bytes:
            data, digest = await asyncio.to_thread(read_whole, cast("Audio", audio))
            declare(config, digest)
            request = pb.AlignRequest(config=config, audio=data)
            try:
                answer = await self._call(self._stub.Align, request, UNARY_TIMEOUT if timeout == "auto" else timeout)
                return read_response(answer, config)
            except ResourceExhaustedError as error:
                if not is_too_large(error):
                    raise
                self._whole_bytes = (await self.server_info()).limits.unary_audio_bytes
                if digest.size <= self._whole_bytes:
                    raise
        async with self._stream(audio, config, STREAM_TIMEOUT if timeout == "auto" else timeout, on_progress) as words:
            return await words.alignment()

    async def stream_align(
        self,
        audio: AsyncStreamAudio,
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
        """`Aligner.stream_align`; chunks may come from an async iterable too. `on_progress` must not block."""
        config = build_config(transcript, language, encoding, sample_rate_hz, channels, audio_track, min_match_score)
        async with self._stream(audio, config, timeout, on_progress) as words:
            return await words.alignment()

    def stream_words(
        self,
        audio: AsyncStreamAudio,
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
    ) -> AsyncWordStream:
        """`Aligner.stream_words`: `async with`, `async for`, `await words.alignment()`."""
        config = build_config(transcript, language, encoding, sample_rate_hz, channels, audio_track, min_match_score)
        return self._stream(audio, config, timeout, on_progress)

    async def server_info(self, *, timeout: float | None = INFO_TIMEOUT) -> ServerInfo:
        """The server's version, engine, languages and limits."""
        return read_server_info(await self._call(self._stub.GetServerInfo, pb.GetServerInfoRequest(), timeout))

    async def close(self) -> None:
        """End the connection, and calls in flight, with CallCancelledError, as all later calls do. Idempotent."""
        self._end_waits()
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _stream(
        self, audio: AsyncStreamAudio, config: pb.AlignConfig, timeout: float | None, on_progress: ProgressCallback | None
    ) -> AsyncWordStream:
        attempts, answer = self._begin(timeout), StreamAnswer(config, on_progress)
        return AsyncWordStream(self._stub.StreamAlign, config, open_async_source(audio), attempts, answer)

    async def _call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response], request: _Request, timeout: float | None
    ) -> _Response:
        attempts = self._begin(timeout)
        while True:
            metadata = await attempts.async_metadata()
            call: Awaitable[_Response] = attempts.call(method, request, metadata)
            try:
                return await call
            except asyncio.CancelledError:
                raise_unless_task_cancelled(ended=attempts.is_closed)
                raise
            except grpc.RpcError as error:
                delay = attempts.failed(error)
            await asyncio.sleep(delay)


class AsyncWordStream(AsyncIterator[Word]):
    """The words of one stream, in order and final. One pass, one task; close it, or use it as an async context manager."""

    def __init__(
        self,
        method: grpc.aio.StreamStreamMultiCallable[pb.StreamAlignRequest, pb.StreamAlignResponse],
        config: pb.AlignConfig,
        source: AbstractContextManager[AsyncSource],
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

    async def __anext__(self) -> Word:
        return await anext(self._words)

    async def batches(self) -> AsyncIterator[Sequence[Word]]:
        """The words as the server sends them: those that became final together."""
        async for batch in self._batches:
            if batch:
                self._word_read = True
                yield batch

    async def alignment(self) -> Alignment:
        """Wait for the remaining words and return the whole answer, however many words were read before."""
        async for _ in self._batches:
            pass
        return self._answer.alignment()

    async def close(self) -> None:
        """End the call if it still runs. Idempotent."""
        await self._words.aclose()
        await self._batches.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _read_words(self) -> AsyncGenerator[Word, None]:
        async for batch in self.batches():
            for word in batch:
                yield word

    async def _receive(self) -> AsyncGenerator[Sequence[Word], None]:
        with self._source as source:
            declare(self._config, await source.digest())
            while True:
                metadata = await self._attempts.async_metadata()
                upload = _Upload(self._config, source.start())
                call = self._attempts.call(self._method, upload.requests(), metadata)
                status = ServerStatus(call)
                try:
                    async for response in call:
                        yield self._answer.feed(response)
                    self._answer.alignment()
                    return
                except asyncio.CancelledError:
                    if upload.error is not None:
                        raise upload.error from None
                    raise_unless_task_cancelled(ended=self._attempts.is_closed)
                    raise
                except grpc.RpcError as error:
                    original = await status.original(error)
                    delay = self._attempts.failed(original, final=self._word_read or not source.rewindable)
                finally:
                    call.cancel()
                self._answer.reset()
                await asyncio.sleep(delay)


class _Upload:
    """The requests of one attempt, which grpc.aio iterates in a task of its own."""

    def __init__(self, config: pb.AlignConfig, chunks: AsyncIterator[bytes]) -> None:
        self._config = config
        self._chunks = chunks
        self.error: Exception | None = None
        """The error of the caller's audio."""

    async def requests(self) -> AsyncIterator[pb.StreamAlignRequest]:
        yield pb.StreamAlignRequest(config=self._config)
        try:
            async for chunk in self._chunks:
                yield pb.StreamAlignRequest(audio=chunk)
        except Exception as error:
            # grpc.aio logs it at debug level and cancels the call, which `_receive` sees.
            self.error = error
            raise
