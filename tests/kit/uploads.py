"""StreamAlign uploads, message by message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import grpc

from aligner_client.api.v1 import aligner_pb2 as pb
from tests.kit.recordings import SPEECH, TRANSCRIPT

Stage = pb.Progress.Stage
CHUNK = 32 * 1024


def config(transcript: str = TRANSCRIPT, language: str = "en", **rest: int) -> pb.StreamAlignRequest:
    return pb.StreamAlignRequest(config=pb.AlignConfig(transcript=transcript, language=language, **rest))


def linear16(transcript: str = TRANSCRIPT) -> pb.StreamAlignRequest:
    """The config of headerless 16 kHz samples."""
    return config(transcript, encoding=pb.AUDIO_ENCODING_LINEAR16, sample_rate_hz=16_000)


def audio(chunk: bytes) -> pb.StreamAlignRequest:
    return pb.StreamAlignRequest(audio=chunk)


def text(piece: str) -> pb.StreamAlignRequest:
    return pb.StreamAlignRequest(transcript=piece)


def chunks(data: bytes = SPEECH, size: int = CHUNK) -> Iterator[pb.StreamAlignRequest]:
    for start in range(0, len(data), size):
        yield audio(data[start : start + size])


@dataclass(frozen=True)
class Answer:
    """A stream's messages, in the order they came."""

    messages: list[pb.StreamAlignResponse]

    @property
    def kinds(self) -> list[str | None]:
        return [message.WhichOneof("payload") for message in self.messages]

    @property
    def progress(self) -> list[pb.Progress]:
        return [message.progress for message in self.messages if message.HasField("progress")]

    @property
    def words(self) -> list[pb.Word]:
        return [word for message in self.messages for word in message.words.words]

    @property
    def summary(self) -> pb.Summary:
        assert self.kinds.count("summary") == 1
        return self.messages[-1].summary


async def send(call: grpc.aio.StreamStreamCall, requests: Iterable[pb.StreamAlignRequest]) -> None:
    """Without the half-close."""
    for request in requests:
        await call.write(request)


async def finish(call: grpc.aio.StreamStreamCall) -> Answer:
    """Half-close, and read to the end."""
    await call.done_writing()
    return Answer([message async for message in call])


async def stream(stub, requests: Iterable[pb.StreamAlignRequest]) -> Answer:
    call = stub.StreamAlign()
    await send(call, requests)
    return await finish(call)


async def refused(stub, requests: Iterable[pb.StreamAlignRequest], *, half_close: bool = False) -> grpc.RpcError:
    """The error of an upload whose last message is the one at fault.

    The sender stays open by default: a write or a half-close after the server's status
    makes grpc.aio overwrite it (see client/aligner_client/aio_status.py).
    """
    call = stub.StreamAlign()
    try:
        await send(call, requests)
        if half_close:
            await call.done_writing()
        async for _ in call:
            pass
    except grpc.RpcError as error:
        return error
    raise AssertionError("the stream was not refused")


async def reached(call: grpc.aio.StreamStreamCall, stage: Stage) -> None:
    """Read until the server says that it is at `stage`."""
    async for message in call:
        if message.progress.stage == stage:
            return
    raise AssertionError(f"the stream ended before {Stage.Name(stage)}")
