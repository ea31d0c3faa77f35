"""proto <-> domain, nothing more: the messages of aligner.v1 in and out of the pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

from grpc import aio

from aligner_svc import __version__
from aligner_svc.api.v1 import aligner_pb2, aligner_pb2_grpc
from aligner_svc.audio.decode import Decoded
from aligner_svc.config.limits import Limits, StreamSettings
from aligner_svc.domain import Alignment, Caller
from aligner_svc.engines.base import Engine
from aligner_svc.errors import LimitExceededError
from aligner_svc.pipeline import Job, Observer, Pipeline, Stage, ignore
from aligner_svc.rpc import messages
from aligner_svc.rpc.upload import Upload
from aligner_svc.rpc.work import Course, scanned_first, scanned_meanwhile
from aligner_svc.telemetry.logs.redaction import conceal
from aligner_svc.workers import Buffer
from interceptors.calls.call import current_call
from interceptors.overload.admission import working

Context: TypeAlias = "aio.ServicerContext[Any, Any]"
_BATCH_WORDS = 256


class AlignerServicer(aligner_pb2_grpc.AlignerServicer):
    """aligner.v1.Aligner over a pipeline."""

    def __init__(self, pipeline: Pipeline, engine: Engine, limits: Limits, stream: StreamSettings) -> None:
        self._pipeline = pipeline
        self._engine = engine
        self._limits = limits
        self._stream = stream
        self._uploads = asyncio.Semaphore(stream.concurrent)

    async def Align(self, request: aligner_pb2.AlignRequest, context: Context) -> aligner_pb2.AlignResponse:  # noqa: N802
        most = self._limits.unary_audio_bytes
        if len(request.audio) > most:
            message = f"the audio has {len(request.audio)} bytes; Align takes at most {most}, send more with StreamAlign"
            raise LimitExceededError("AUDIO_TOO_LARGE", message, field="audio")
        job = messages.job(request.config if request.HasField("config") else None)
        conceal(job.transcript)
        await messages.declared(request.config).check(request.audio)
        alignment = await scanned_first(request.audio, self._work(job, request.audio, _caller(context)))
        if len(alignment.words) <= _BATCH_WORDS:
            return messages.response(alignment)
        return await asyncio.to_thread(messages.response, alignment)  # 40,000 words take a tenth of a second

    async def StreamAlign(  # noqa: N802
        self, requests: AsyncIterator[aligner_pb2.StreamAlignRequest], context: Context
    ) -> AsyncIterator[aligner_pb2.StreamAlignResponse]:
        upload = Upload(requests, self._pipeline, self._limits, self._stream.idle_timeout)
        await upload.begin()
        # A slot before the first chunk is read: what a sender may have in our memory is bounded by slots x limits, and
        # while the engine is behind, HTTP/2 flow control holds the others.
        async with self._uploads:
            async for received in upload.receive():
                yield messages.receiving(received)
            if context.cancelled() or context.done():
                return  # a dropped client looks like the end of its upload
            latest: asyncio.Queue[tuple[Stage, float, float]] = asyncio.Queue(maxsize=1)

            def observe(stage: Stage, aligned: float, total: float) -> None:
                if latest.full():
                    latest.get_nowait()
                latest.put_nowait((stage, aligned, total))

            job, audio = upload.finish()
            conceal(job.transcript)
            work = asyncio.create_task(scanned_meanwhile(audio, self._work(job, audio, _caller(context), observe)))
            del audio
            try:
                while not work.done():
                    told = asyncio.create_task(latest.get())
                    await asyncio.wait((work, told), return_when=asyncio.FIRST_COMPLETED)
                    if told.done():
                        stage, aligned, total = told.result()
                        yield messages.working(stage, upload.received, aligned, total)
                    else:
                        told.cancel()
                alignment = await work
            finally:
                work.cancel()
        for first in range(0, len(alignment.words), _BATCH_WORDS):
            words = [messages.word(word) for word in alignment.words[first : first + _BATCH_WORDS]]
            yield aligner_pb2.StreamAlignResponse(words=aligner_pb2.WordBatch(words=words))
        yield aligner_pb2.StreamAlignResponse(summary=messages.summary(alignment))

    async def _work(self, job: Job, audio: Buffer, caller: Caller, observe: Observer = ignore) -> Alignment:
        """The job, once there is room for it; what it turns out to hold is charged before the engine works on it."""
        async with working() as work:
            course = Course(memoryview(audio).nbytes, observe)

            async def admit(decoded: Decoded) -> None:
                course.decoded(decoded)
                await _charge(decoded.clip.seconds)

            aligning = self._pipeline.align(job, audio, caller, course.observe, admit)
            del audio  # an upload may be hundreds of MB, and only the decoder needs it
            try:
                alignment = await aligning
            except BaseException as error:
                course.failed(error)
                raise
            course.done(alignment)
            timing = alignment.timing
            work.done(timing.queue, timing.decode + timing.align)
        return alignment

    async def GetServerInfo(  # noqa: N802
        self, request: aligner_pb2.GetServerInfoRequest, context: Context
    ) -> aligner_pb2.GetServerInfoResponse:
        limits = self._limits
        return aligner_pb2.GetServerInfoResponse(
            version=__version__,
            engine=self._engine.name,
            languages=sorted(self._engine.languages),
            limits=aligner_pb2.Limits(
                unary_audio_bytes=limits.unary_audio_bytes,
                stream_audio_bytes=limits.stream_audio_bytes,
                stream_chunk_bytes=limits.stream_chunk_bytes,
                audio_seconds=int(limits.audio_seconds),
                transcript_chars=limits.transcript_chars,
            ),
        )


async def _charge(audio_seconds: float) -> None:
    call = current_call()
    if call is not None and call.meter is not None:
        await call.meter.decoded(audio_seconds)


def _caller(context: Context) -> Caller:
    """Who takes turns as one: a principal, else a host, however many connections it opens."""
    call = current_call()
    client = (call.principal.name if call.principal else call.peer.rpartition(":")[0]) if call else ""
    left = context.time_remaining()
    return Caller(client, None if left is None else asyncio.get_running_loop().time() + left)
