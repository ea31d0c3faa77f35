"""Any bytes as the messages of a StreamAlign or an Align: what protobuf parses becomes a job or one refusal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final, cast

import atheris
from google.protobuf.message import DecodeError

with atheris.instrument_imports(
    include=["aligner_svc.rpc.messages", "aligner_svc.rpc.upload", "aligner_svc.pipeline", "aligner_svc.rpc.status"]
):
    from aligner_svc.pipeline import Pipeline
    from aligner_svc.rpc import messages
    from aligner_svc.rpc.status import DOMAIN, refusal_of
    from aligner_svc.rpc.upload import Upload

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.audio.decode import Decoder
from aligner_svc.config.limits import Limits
from aligner_svc.errors import AlignerError, Status
from tests.fuzz.running import run
from tests.kit.scripted_engine import ScriptedEngine

LIMITS: Final = Limits(stream_audio_bytes=2000, stream_chunk_bytes=500, unary_audio_bytes=2000, transcript_chars=300)
# Neither is called: an upload asks its pipeline for the language and the transcript's length.
PIPELINE: Final = Pipeline(cast("Decoder", None), ScriptedEngine(), LIMITS)
LOOP: Final = asyncio.new_event_loop()


def one(data: bytes) -> None:
    """A length in two bytes before each message."""
    parts = []
    while len(data) >= 2:
        size = int.from_bytes(data[:2], "little")
        parts.append(data[2 : 2 + size])
        data = data[2 + size :]
    try:
        LOOP.run_until_complete(stream([pb.StreamAlignRequest.FromString(part) for part in parts]))
        if parts:
            request = pb.AlignRequest.FromString(parts[0])
            messages.job(request.config if request.HasField("config") else None)
    except DecodeError:
        pass  # the transport's business, before any code of ours
    except AlignerError as refused:
        status = refusal_of(refused).status(DOMAIN)
        assert status.code in set(Status) - {Status.UNAVAILABLE}, "what is wrong with a message stays wrong"
        assert status.message
        assert status.details


async def stream(requests: Sequence[pb.StreamAlignRequest]) -> None:
    async def sent() -> AsyncIterator[pb.StreamAlignRequest]:
        for request in requests:
            yield request

    upload = Upload(sent(), PIPELINE, LIMITS)
    await upload.begin()
    async for received in upload.receive():
        assert received <= LIMITS.stream_audio_bytes
    job, audio = upload.finish()
    assert len(audio) == sum(len(request.audio) for request in requests)
    assert job.transcript == requests[0].config.transcript + "".join(request.transcript for request in requests[1:])


def seeds() -> Iterable[bytes]:
    config = pb.StreamAlignRequest(
        config=pb.AlignConfig(transcript="Hello world", language="en-GB", encoding=1, sample_rate_hz=16_000)
    )
    audio, text = pb.StreamAlignRequest(audio=bytes(300)), pb.StreamAlignRequest(transcript=" and on")
    whole = pb.AlignRequest(config=config.config, audio=bytes(10))
    for sequence in (
        [config, audio, text, audio],
        [config],
        [audio, config],
        [config, config],
        [config, pb.StreamAlignRequest()],
        [whole],
    ):
        yield b"".join(len(m.SerializeToString()).to_bytes(2, "little") + m.SerializeToString() for m in sequence)


if __name__ == "__main__":
    run(one, seeds)
