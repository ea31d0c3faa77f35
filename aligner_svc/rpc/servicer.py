"""aligner.v1.Aligner: the messages of the API in and out of the domain, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.api.v1 import aligner_pb2_grpc
from aligner_svc import __version__
from aligner_svc.config.limits import Limits
from aligner_svc.engines.base import Engine
from aligner_svc.errors import LimitExceededError
from aligner_svc.pipeline import Following, Pipeline
from aligner_svc.rpc import messages
from aligner_svc.rpc.live import LiveCall
from aligner_svc.rpc.status import refusals
from aligner_svc.rpc.upload import Upload
from aligner_svc.rpc.work import Progress, Work, caller_of
from aligner_svc.workers.threads import off_loop
from interceptors.calls.call import Context, current_call


def _unscanned() -> bool:
    """Whether words may be sent before the upload has ended: there is no verdict of a scan to wait for."""
    call = current_call()
    return call is None or call.scan is None or call.scan.skipped


class AlignerServicer(aligner_pb2_grpc.AlignerServicer):
    """Align, StreamAlign and GetServerInfo over a pipeline."""

    def __init__(self, pipeline: Pipeline, engine: Engine, limits: Limits) -> None:
        self._pipeline = pipeline
        self._work = Work(pipeline)
        self._engine = engine
        self._limits = limits

    async def Align(self, request: pb.AlignRequest, context: Context) -> pb.AlignResponse:  # noqa: N802
        with refusals():
            audio, allowed = request.audio, self._limits.unary_audio_bytes
            if len(audio) > allowed:
                message = f"the audio has {len(audio)} bytes; Align takes at most {allowed}, send more with StreamAlign"
                raise LimitExceededError("AUDIO_TOO_LARGE", message, field="audio")
            job = messages.job(request.config if request.HasField("config") else None)
            declared = messages.declared(request.config)
            del request  # neither it nor the audio is kept while the engine works on the clip
            await declared.check(audio)
            aligning = self._work.align(job, audio, caller_of(context))
            del audio
            alignment = await aligning
            return await off_loop(messages.response, alignment, words=len(alignment.words))

    async def StreamAlign(  # noqa: N802
        self, requests: AsyncIterator[pb.StreamAlignRequest], context: Context
    ) -> AsyncIterator[pb.StreamAlignResponse]:
        with refusals():
            # What it keeps is bounded by the guards: senders beyond their share of the memory are held back.
            upload = Upload(requests, self._pipeline, self._limits)
            await upload.begin()
            following: Following | None = None
            async with aclosing(upload.follow(caller_of(context))) as steps:
                async for found in steps:
                    if isinstance(found, int):
                        yield messages.receiving(found)
                    else:
                        following = found
            if following is not None:
                spool = None if _unscanned() else self._pipeline.spool()
                async with aclosing(LiveCall(upload, following, context, spool).responses()) as answers:
                    async for answer in answers:
                        for response in messages.live_responses(answer, upload.received, following):
                            yield response
                return
            async with aclosing(self._complete(upload, context)) as responses:
                async for response in responses:
                    yield response

    async def _complete(self, upload: Upload, context: Context) -> AsyncGenerator[pb.StreamAlignResponse, None]:
        """Align an upload when all of it is there."""
        async for received in upload.receive():
            yield messages.receiving(received)
        if context.cancelled() or context.done():
            return  # a client that disconnects looks like the end of its upload
        async with aclosing(self._work.stream(*upload.finish(), caller_of(context))) as work:
            async for step in work:
                if isinstance(step, Progress):
                    yield messages.working(step.stage, upload.received, step.aligned, step.total)
                else:
                    alignment = step
        for response in messages.stream_responses(alignment):
            yield response

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.GetServerInfoResponse:  # noqa: N802
        return messages.server_info(__version__, self._engine, self._limits)
