"""Faults inside the server: a bug is sent as INTERNAL without its text, an expected failure keeps its details."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest
import pytest_asyncio

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.config.engine import EngineSettings
from aligner_svc.config.limits import StreamSettings
from aligner_svc.errors import LimitExceededError, UnavailableError
from aligner_svc.server import Service
from aligner_svc.workers import heartbeat
from tests.kit.recordings import SPEECH
from tests.kit.refusals import check, refusal
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, serving
from tests.kit.uploads import chunks, config, refused
from tests.kit.waiting import eventually

SECRET = "password of the database: hunter2"

Call = Callable[..., Awaitable[grpc.RpcError]]


async def unary(stub) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        await stub.Align(pb.AlignRequest(config=config().config, audio=SPEECH))
    return error.value


async def streamed(stub) -> grpc.RpcError:
    return await refused(stub, [config(), *chunks()], half_close=True)


CALLS = pytest.mark.parametrize("call", [unary, streamed])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Service]:
    async with serving(engine=ScriptedEngine(), stream=StreamSettings(concurrent=1)) as running:
        yield running


@pytest.fixture
def engine(server):
    yield server.engine
    server.engine.error = None


@CALLS
@pytest.mark.parametrize(
    "bug", [ValueError(SECRET), KeyError(SECRET), TimeoutError(SECRET), ExceptionGroup(SECRET, [OSError(SECRET)])]
)
async def test_a_bug_is_sent_without_its_text(stub, engine, caplog, call: Call, bug):
    engine.error = bug
    error = await call(stub)
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert not any("hunter2" in str(value) for _, value in error.trailing_metadata())
    logged = [record for record in caplog.records if record.exc_info]
    assert len(logged) == 1
    assert logged[0].exc_info[1] is bug
    engine.error = None
    assert (await stub.Align(pb.AlignRequest(config=config().config, audio=SPEECH))).words


@CALLS
async def test_an_expected_failure_keeps_its_details(stub, engine, caplog, call: Call):
    engine.error = LimitExceededError("ENGINE_QUEUE_FULL", "too many calls are waiting", retry_after=2.5)
    reported = refusal(await call(stub))
    check(reported, grpc.StatusCode.RESOURCE_EXHAUSTED, "ENGINE_QUEUE_FULL", None)
    assert reported.retry_seconds == 2.5
    engine.error = UnavailableError("ENGINE_UNAVAILABLE", "the aligner is not there", field="audio")
    check(refusal(await call(stub)), grpc.StatusCode.UNAVAILABLE, "ENGINE_UNAVAILABLE", "audio")
    assert not [record for record in caplog.records if record.exc_info], "what is expected is no error of the server"


async def test_a_call_that_finds_the_queue_full_is_refused_with_a_retry_delay(monkeypatch):
    """The embedded engine with a queue of one, and its only process stopped, which is not noticed."""
    monkeypatch.setattr(heartbeat, "read", lambda pid: None)
    one = EngineSettings(workers=1, queue=1)
    async with serving(engine_settings=one) as server, calling(server.address) as stub:
        [pid] = server.engine.short.pool.pids
        os.kill(pid, signal.SIGSTOP)
        try:
            held = [stub.Align(pb.AlignRequest(config=config().config, audio=SPEECH)) for _ in range(2)]
            await eventually(lambda: server.engine.short.batcher.state().waiting == 1, "one call to run and one to wait")
            for call in (unary, streamed):
                refused_call = refusal(await call(stub))
                check(refused_call, grpc.StatusCode.RESOURCE_EXHAUSTED, "ENGINE_QUEUE_FULL", None)
                assert refused_call.retry_seconds == 1.0
        finally:
            os.kill(pid, signal.SIGCONT)
        assert all([(await call).words for call in held])
