"""Some of the hostile files over the wire: each is one refusal that says why, and the server goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import grpc
import pytest
import pytest_asyncio

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.audio.encoding import Encoding
from aligner_svc.config.limits import MIB, Limits
from aligner_svc.server import Service
from tests.hostile.corpus import CORPUS
from tests.hostile.hostile import DECODED
from tests.kit.recordings import SPEECH
from tests.kit.refusals import check, refusal
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, serving

# Those that have one outcome alone; over the wire every third of them, and all of the polyglots and bombs.
ONE_OUTCOME: Final = sorted(
    name
    for name, case in CORPUS.items()
    if len(case.outcomes) == 1 and DECODED not in case.outcomes and case.encoding is Encoding.CONTAINER
)
NAMED: Final = frozenset({"AUDIO_POLYGLOT", "AUDIO_TOO_LONG"})
CHOSEN: Final = sorted({*ONE_OUTCOME[::3], *(name for name in ONE_OUTCOME if CORPUS[name].outcomes <= NAMED)})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Service]:
    async with serving(engine=ScriptedEngine(), limits=Limits(audio_seconds=60)) as running:
        yield running


def request(audio: bytes) -> pb.AlignRequest:
    return pb.AlignRequest(config=pb.AlignConfig(transcript="Hello world", language="en"), audio=audio)


@pytest.mark.parametrize("name", CHOSEN)
async def test_refused_by_its_name(server: Service, name: str) -> None:
    case, pids = CORPUS[name], server.decoder.pool.pids
    audio = case.make()
    assert len(audio) < 10 * MIB
    async with calling(server.address) as stub:
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Align(request(audio))
    reported = refusal(caught.value)
    (reason,) = case.outcomes
    check(reported, grpc.StatusCode.INVALID_ARGUMENT, reason, "audio")
    assert case.says in reported.message
    assert server.decoder.pool.pids == pids


async def test_a_recording_among_fifty_of_them_is_aligned(server: Service) -> None:
    """All at once, so that they and the good one have the same decoder between them."""
    pids = server.decoder.pool.pids
    hostile = [CORPUS[name].make() for name in ONE_OUTCOME[:50]]

    async def send(stub, audio: bytes) -> str:
        try:
            await stub.Align(request(audio))
        except grpc.RpcError as error:
            return refusal(error).reason
        return DECODED

    async with calling(server.address) as stub:
        *refused, good = await asyncio.gather(*(send(stub, audio) for audio in (*hostile, SPEECH)))
    assert good == DECODED
    assert DECODED not in refused
    assert server.decoder.pool.pids == pids
