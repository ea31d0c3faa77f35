"""A real aligner server on a loopback port whose faults are written down in advance: for the client's and the CLI's tests."""

# ruff: noqa: N802 - the methods are named by the proto

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1.aligner_pb2_grpc import AlignerServicer, add_AlignerServicer_to_server
from interceptors import Wrapping
from tests.kit.chain_server import in_thread, make_server, started

MIB = 1 << 20


@dataclass(frozen=True)
class Fault:
    """One call's failure. `when` is for streams. HANG leaves the call open until its deadline."""

    code: grpc.StatusCode | Literal["HANG"]
    message: str = "scripted"
    reason: str = ""
    violations: Sequence[tuple[str, str]] = ()
    retry_delay: float | None = None
    pushback_ms: str | None = None
    when: Literal["start", "after_upload", "after_word"] = "start"


@dataclass
class Received:
    """What one call brought, complete or not."""

    method: str
    transcript: str = ""
    language: str = ""
    encoding: int = 0
    sample_rate_hz: int = 0
    channels: int = 0
    audio: bytes = b""
    chunks: list[int] = field(default_factory=list)


class ScriptedAligner(AlignerServicer):
    """Answers half a second for every blank-separated word; fails as `faults` say, one a call, first to last."""

    def __init__(self) -> None:
        self.faults: deque[Fault] = deque()
        self.audio_start_ms = 0
        self.faulty_audio: dict[bytes, Fault] = {}
        """Fault by the first bytes of the audio, every time."""
        self.calls: list[Received] = []
        self.configs: list[pb.AlignConfig] = []
        self.arrived = threading.Semaphore(0)
        """Released once for every call."""
        self.unary_limit = 10 * MIB
        self.warnings: list[pb.Warning] = []
        self.summary = True

    async def Align(self, request: pb.AlignRequest, context: Any) -> pb.AlignResponse:
        call = self._received("Align", request.config)
        call.audio = request.audio
        await self._fail(self._next_fault(request.audio), context)
        if len(request.audio) > self.unary_limit:
            await self._fail(Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "too large", "AUDIO_TOO_LARGE"), context)
        return pb.AlignResponse(words=self._words(call.transcript), summary=self._summary(call))

    async def StreamAlign(
        self, request_iterator: AsyncIterator[pb.StreamAlignRequest], context: Any
    ) -> AsyncIterator[pb.StreamAlignResponse]:
        call = self._received("StreamAlign", (await anext(request_iterator)).config)
        fault = self._next_fault(b"")
        if fault and fault.when == "start":
            await self._fail(fault, context)
        async for request in request_iterator:
            call.audio += request.audio
            call.chunks.append(len(request.audio))
            yield pb.StreamAlignResponse(progress=pb.Progress(stage=pb.Progress.STAGE_RECEIVING, received_bytes=len(call.audio)))
        fault = fault or self._next_fault(call.audio)
        if fault and fault.when == "after_upload":
            await self._fail(fault, context)
        words = self._words(call.transcript)
        for word in words:
            yield pb.StreamAlignResponse(words=pb.WordBatch(words=[word]))
            if fault:
                await self._fail(fault, context)
            yield pb.StreamAlignResponse(
                progress=pb.Progress(
                    stage=pb.Progress.STAGE_ALIGNING,
                    received_bytes=len(call.audio),
                    aligned_ms=word.end_ms,
                    audio_ms=words[-1].end_ms,
                )
            )
        if self.summary:
            yield pb.StreamAlignResponse(summary=self._summary(call))

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Any) -> pb.GetServerInfoResponse:
        return pb.GetServerInfoResponse(
            version="9.9",
            engine="scripted-1",
            languages=["en", "de"],
            limits=pb.Limits(
                unary_audio_bytes=self.unary_limit,
                stream_audio_bytes=512 * MIB,
                stream_chunk_bytes=MIB,
                audio_seconds=14400,
                transcript_chars=200_000,
            ),
        )

    def _received(self, method: str, config: pb.AlignConfig) -> Received:
        call = Received(method, config.transcript, config.language, config.encoding, config.sample_rate_hz, config.channels)
        self.calls.append(call)
        self.configs.append(config)
        self.arrived.release()
        return call

    def _next_fault(self, audio: bytes) -> Fault | None:
        for start, fault in self.faulty_audio.items():
            if audio.startswith(start):
                return fault
        return self.faults.popleft() if self.faults else None

    async def _fail(self, fault: Fault | None, context: Any) -> None:
        if fault is None:
            return
        if fault.code == "HANG":
            await asyncio.Event().wait()
            return
        trailing: list[tuple[str, str | bytes]] = []
        details = _details(fault)
        if details:
            status = status_pb2.Status(code=fault.code.value[0], message=fault.message, details=details)
            trailing.append(("grpc-status-details-bin", status.SerializeToString()))
        if fault.pushback_ms is not None:
            trailing.append(("grpc-retry-pushback-ms", fault.pushback_ms))
        await context.abort(fault.code, fault.message, tuple(trailing))

    @staticmethod
    def _words(transcript: str) -> list[pb.Word]:
        words, position = [], 0
        for index, text in enumerate(transcript.split()):
            position = transcript.index(text, position)
            words.append(
                pb.Word(
                    text=text,
                    start_ms=index * 500,
                    end_ms=index * 500 + 400,
                    confidence=0.5,
                    status=pb.WORD_STATUS_NOT_FOUND if text == "missing" else pb.WORD_STATUS_ALIGNED,
                    char_start=position,
                    char_end=position + len(text),
                )
            )
            position += len(text)
        return words

    def _summary(self, call: Received) -> pb.Summary:
        return pb.Summary(
            audio_start_ms=self.audio_start_ms,
            audio_ms=len(call.transcript.split()) * 500,
            engine="scripted-1",
            language=call.language,
            match_score=0.75,
            warnings=self.warnings,
            unaligned=[pb.Span(start_ms=900, end_ms=1000)],
            timing=pb.Timing(queue_ms=1, decode_ms=2, align_ms=3, total_ms=6),
        )


def _details(fault: Fault) -> list[AnyMessage]:
    messages: list[Any] = []
    if fault.reason:
        messages.append(error_details_pb2.ErrorInfo(reason=fault.reason, domain="aligner"))
    if fault.violations:
        violation = error_details_pb2.BadRequest.FieldViolation
        messages.append(
            error_details_pb2.BadRequest(field_violations=[violation(field=f, description=d) for f, d in fault.violations])
        )
    if fault.retry_delay is not None:
        delay = Duration()
        delay.FromMilliseconds(int(fault.retry_delay * 1000))
        messages.append(error_details_pb2.RetryInfo(retry_delay=delay))
    details = []
    for message in messages:
        detail = AnyMessage()
        detail.Pack(message)
        details.append(detail)
    return details


@dataclass(frozen=True)
class Running:
    target: str
    script: ScriptedAligner


@contextmanager
def scripted_server(
    credentials: grpc.ServerCredentials | None = None, interceptors: Sequence[Wrapping] = ()
) -> Iterator[Running]:
    """In a thread of its own, with its own event loop, so that a blocking client can be tested too."""

    @asynccontextmanager
    async def running() -> AsyncIterator[Running]:
        script = ScriptedAligner()
        async with started(
            make_server(interceptors, register=partial(add_AlignerServicer_to_server, script)), credentials
        ) as target:
            yield Running(target, script)

    with in_thread(running()) as found:
        yield found
