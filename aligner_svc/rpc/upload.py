"""One StreamAlign upload: config first, then audio and transcript, within the limits."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import replace

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.audio.arriving.upload import NotEnoughError
from aligner_svc.config.limits import Limits
from aligner_svc.domain import Caller
from aligner_svc.errors import InvalidArgumentError, LimitExceededError
from aligner_svc.pipeline import Following, Job, Pipeline
from aligner_svc.rpc import messages
from aligner_svc.rpc.integrity import Arriving, Declared
from aligner_svc.telemetry.logs.redaction import conceal
from aligner_svc.text.characters import check_characters

_HEAD = 256 * 1024
"""Bytes by which it is judged whether an upload can be decoded while it comes."""
_LONG_BYTES, _LONG_SECONDS = 1 << 20, 1.5
"""Of an upload, from which on a process is started for its container, which takes half a second to load."""
_PIECE = 64 * 1024
"""Bytes handed on at a time: a MiB of MP3 holds two minutes, which are decoded to 8 MB."""
_REPORT_BYTES = 1 << 20
"""Audio between two progress messages. They must not stall a client that reads nothing until its upload is done: the 512 of
the largest upload stay far below the 64 KiB that HTTP/2 flow control lets the server send ahead."""


class Upload:
    """Memory: the audio received so far, `limits.stream_audio_bytes` at most, and the transcript."""

    def __init__(self, requests: AsyncIterator[pb.StreamAlignRequest], pipeline: Pipeline, limits: Limits) -> None:
        self.received = 0
        """Bytes of audio so far."""
        self._requests = aiter(requests)
        self._pipeline = pipeline
        self._limits = limits
        self._job: Job | None = None
        self._audio = bytearray()
        self._arriving = Arriving(Declared())
        self._text: list[str] = []
        self.characters = 0
        """Of the transcript so far."""

    async def begin(self) -> None:
        """Read the config, and refuse what it alone shows to be invalid before any audio is read."""
        first = await self._next()
        if first is None or first.WhichOneof("payload") != "config":
            raise InvalidArgumentError("CONFIG_MISSING", "the first message must be the config", field="config")
        self._job = messages.job(first.config)
        self._pipeline.language(self._job.language)
        self._add_text(self._job.transcript)
        for _, text in self._job.channel_transcripts:
            self._check_text(text)
        declared = messages.declared(first.config)
        if declared.size > self._limits.stream_audio_bytes:
            raise self._too_large()
        self._arriving = Arriving(declared)

    async def follow(self, caller: Caller) -> AsyncGenerator[int | Following, None]:
        """Read what it takes to know whether the audio can be aligned while it comes; last what aligns it, if it can.

        Before that the bytes received, once: a client may wait for a sign before it sends the rest.
        """
        assert self._job is not None
        began = time.monotonic()
        reported = False
        while True:
            long = self.received >= _LONG_BYTES or time.monotonic() - began >= _LONG_SECONDS
            try:
                found = await self._pipeline.follow(self._job, bytes(self._audio[:_HEAD]), caller, long=long)
                break
            except NotEnoughError:
                pass
            if self.received and not reported:
                reported = True
                yield self.received
            request = await self._next()
            if request is None:
                return
            await self._add(request)
        if found is not None:
            yield found

    async def pieces(self) -> AsyncIterator[bytearray | str]:
        """Text and audio as they come, up to the half-close; nothing is kept. Raises like `receive` and `finish`."""
        for text in self._text:
            yield text
        audio, self._audio = self._audio, bytearray()
        for piece in _pieces(audio):
            yield piece
        while (request := await self._next()) is not None:
            self._text = []
            await self._add(request)
            for text in self._text:
                yield text
            if request.WhichOneof("payload") == "audio":
                audio, self._audio = self._audio, bytearray()
                for piece in _pieces(audio):
                    yield piece
        self._arriving.finish()

    async def receive(self) -> AsyncIterator[int]:
        """Read everything up to the half-close; yields the bytes received, once a MiB."""
        reported = -_REPORT_BYTES
        if self.received:
            reported = self.received
            yield self.received
        while (request := await self._next()) is not None:
            await self._add(request)
            if self.received - reported >= _REPORT_BYTES:
                reported = self.received
                yield self.received

    def finish(self) -> tuple[Job, bytearray]:
        """The job and its audio, which the upload releases. Raises DataLossError if the audio is not what was declared."""
        assert self._job is not None
        self._arriving.finish()
        audio, self._audio = self._audio, bytearray()
        return replace(self._job, transcript="".join(self._text)), audio

    async def _next(self) -> pb.StreamAlignRequest | None:
        return await anext(self._requests, None)

    async def _add(self, request: pb.StreamAlignRequest) -> None:
        match request.WhichOneof("payload"):
            case "audio":
                await self._add_audio(request.audio)
            case "transcript":
                if self._job is not None and self._job.channel_transcripts:
                    raise messages.several_transcripts()
                self._add_text(request.transcript)
            case "config":
                raise InvalidArgumentError("CONFIG_REPEATED", "the config may be sent once, first", field="config")
            case _:
                raise InvalidArgumentError("MESSAGE_EMPTY", "a message holds neither audio nor transcript", field="payload")

    async def _add_audio(self, chunk: bytes) -> None:
        most = self._limits.stream_chunk_bytes
        if len(chunk) > most:
            message = f"a message holds {len(chunk)} bytes of audio; at most {most} are accepted"
            raise InvalidArgumentError("CHUNK_TOO_LARGE", message, field="audio")
        self.received += len(chunk)
        if self.received > self._limits.stream_audio_bytes:
            raise self._too_large()
        await self._arriving.add(chunk)
        self._audio += chunk

    def _too_large(self) -> LimitExceededError:
        message = f"the upload holds more than the {self._limits.stream_audio_bytes} bytes of audio accepted"
        return LimitExceededError("AUDIO_TOO_LARGE", message, field="audio")

    def _add_text(self, text: str) -> None:
        self._check_text(text)
        self._text.append(text)

    def _check_text(self, text: str) -> None:
        self._pipeline.check_transcript(self.characters + len(text))
        check_characters(text, self.characters)
        conceal(text)
        self.characters += len(text)


def _pieces(audio: bytearray) -> Iterator[bytearray]:
    """All of it, which is used up."""
    while audio:
        piece = audio[:_PIECE]
        del audio[:_PIECE]
        yield piece
