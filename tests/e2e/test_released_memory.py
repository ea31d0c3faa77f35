"""A call's recording is released as soon as it is decoded, its samples as soon as the call has ended, however it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import grpc
import pytest

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.config.limits import Limits
from aligner_svc.config.protection import AntivirusSettings
from aligner_svc.domain import Clip
from aligner_svc.engines.base import SHORT_SECONDS
from aligner_svc.engines.pocketsphinx.engine import PocketSphinxEngine, WindowQueue
from aligner_svc.errors import UnavailableError
from aligner_svc.rpc import work
from aligner_svc.server import Service
from aligner_svc.workers import heartbeat
from interceptors import recovery
from interceptors.calls.hooks import UploadScan
from tests.kit.clamd_server import EICAR, ClamdServer, clamav, clamd_server  # noqa: F401 - fixtures
from tests.kit.recordings import noise, noise_m4a
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, serving
from tests.kit.uploads import config, linear16
from tests.kit.waiting import eventually

MIB = 1 << 20
NOISE = noise(131).tobytes()
Send = Callable[..., Awaitable[object]]


async def unary(stub, audio: bytes = NOISE, **options) -> object:
    return await stub.Align(pb.AlignRequest(config=linear16().config, audio=audio), **options)


async def stream(stub, audio: bytes = b"", **options) -> object:
    """Of a container, which is aligned when it is complete; `audio`: of samples without a header."""

    async def requests() -> AsyncIterator[pb.StreamAlignRequest]:
        yield linear16() if audio else config()
        if not audio:
            yield pb.StreamAlignRequest(audio=noise_m4a(131))
        for start in range(0, len(audio), MIB):
            yield pb.StreamAlignRequest(audio=audio[start : start + MIB])

    return [response async for response in stub.StreamAlign(requests(), **options)]


SENDERS = pytest.mark.parametrize("send", [unary, stream])


_before: list[Clip] = []
"""Those of other tests of this process, which keep theirs."""


def clips() -> int:
    """Made since the test began, and not released."""
    others = set(map(id, _before))
    return sum(type(one) is Clip and id(one) not in others for one in gc.get_objects())


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Without the collector, which would hide a cycle sooner or later."""
    gc.collect()
    _before[:] = [one for one in gc.get_objects() if type(one) is Clip]
    gc.disable()
    yield
    gc.enable()
    _before.clear()


async def failed(call: Awaitable[object]) -> grpc.StatusCode | None:
    """How it ended; what the error holds is released."""
    try:
        await call
    except grpc.RpcError as error:
        return error.code()
    except asyncio.CancelledError:
        return grpc.StatusCode.CANCELLED
    return None


@SENDERS
async def test_an_upload_is_not_kept_beside_its_samples(send: Send) -> None:
    """Tracemalloc sees every bytes and bytearray; samples are mapped memory."""
    engine = ScriptedEngine()
    size = 20 * MIB
    async with serving(engine=engine, limits=Limits(unary_audio_bytes=size)) as running, calling(running.address) as stub:
        engine.gate.clear()
        tracemalloc.start()
        try:
            call = asyncio.create_task(send(stub, bytes(size)))  # type: ignore[arg-type]  # a coroutine
            await engine.at_gate.acquire()
            large = [trace.size for trace in tracemalloc.take_snapshot().traces if trace.size > MIB]
        finally:
            tracemalloc.stop()
            engine.gate.set()
        await call
    # The argument of `send`, and what gRPC's client keeps of a unary request.
    assert sum(large) < (2 if send is stream else 3) * size, large
    assert not [trace for trace in large if trace > size * 1.05], large


@SENDERS
@pytest.mark.usefixtures("uncollected")
async def test_the_samples_are_released_when_the_engine_fails(send: Send, monkeypatch) -> None:
    monkeypatch.setattr(recovery.log, "disabled", True)  # pytest keeps what is logged, with its traceback
    engine = ScriptedEngine()
    async with serving(engine=engine) as running, calling(running.address) as stub:
        for make in (lambda: UnavailableError("ENGINE_UNAVAILABLE", "not there"), lambda: ValueError("a bug")):
            engine.error = make()
            assert await failed(send(stub)) is not None
            engine.error = None
            await eventually(lambda: clips() == 0)


@SENDERS
@pytest.mark.usefixtures("uncollected")
async def test_the_samples_are_released_when_the_deadline_passes_or_the_client_leaves(send: Send, monkeypatch) -> None:
    """At the engine, and in its queue."""
    monkeypatch.setattr(heartbeat, "read", lambda pid: None)
    async with serving(workers=1) as running, calling(running.address) as stub:
        for cancel in (False, True):
            pid = await held(running)
            calls = [asyncio.create_task(send(stub, timeout=None if cancel else 2.0)) for _ in range(2)]  # type: ignore[arg-type]
            if cancel:
                await eventually(lambda: clips() == 2)
                for call in calls:
                    call.cancel()
            ended = [await failed(call) for call in calls]
            assert None not in ended
            await eventually(lambda: clips() == 0)
            await eventually(lambda pid=pid: pid not in queue(running).pool.pids)


@SENDERS
@pytest.mark.usefixtures("uncollected")
async def test_the_samples_are_released_when_two_processes_are_killed(send: Send, monkeypatch) -> None:
    monkeypatch.setattr(heartbeat, "read", lambda pid: None)
    async with serving(workers=1) as running, calling(running.address) as stub:
        pool = queue(running).pool
        first = await held(running)
        call = asyncio.create_task(send(stub))  # type: ignore[arg-type]
        await eventually(lambda: queue(running).batcher.state().running == 1)
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: pool.pids not in ([], [first]))
        os.kill(pool.pids[0], signal.SIGKILL)
        assert await failed(call) is grpc.StatusCode.UNAVAILABLE
        del call
        await eventually(lambda: clips() == 0)


@SENDERS
@pytest.mark.usefixtures("uncollected")
async def test_the_samples_are_released_when_the_scan_refuses_them(send: Send, clamav: ClamdServer) -> None:  # noqa: F811
    antivirus = AntivirusSettings(address=clamav.unix, stream_max_bytes=clamav.stream_max_bytes)
    async with serving(engine=ScriptedEngine(), antivirus=antivirus) as running, calling(running.address) as stub:
        assert await failed(send(stub, bytes(MIB) + EICAR)) is grpc.StatusCode.INVALID_ARGUMENT
        await eventually(lambda: clips() == 0)


@pytest.mark.usefixtures("uncollected")
async def test_the_samples_are_released_when_a_stream_at_the_engine_is_refused(
    clamav: ClamdServer,  # noqa: F811
    monkeypatch,
) -> None:
    antivirus = AntivirusSettings(address=clamav.unix, stream_max_bytes=clamav.stream_max_bytes)
    engine, verdict = ScriptedEngine(), work.pass_scan
    engine.gate.clear()

    async def late(scan: UploadScan, audio: bytearray) -> float:
        await engine.at_gate.acquire()
        return await verdict(scan, audio)

    monkeypatch.setattr(work, "pass_scan", late)
    async with serving(engine=engine, antivirus=antivirus) as running, calling(running.address) as stub:
        assert await failed(stream(stub, bytes(MIB) + EICAR)) is grpc.StatusCode.INVALID_ARGUMENT
        assert engine.cancelled == 1
        await eventually(lambda: clips() == 0)


async def held(running: Service) -> int:
    """The only process of the engine, which is stopped."""
    pool = queue(running).pool
    pool._children.begin()  # it would start with the first call
    await eventually(lambda: len(pool.pids) == 1)
    os.kill(pool.pids[0], signal.SIGSTOP)
    return int(pool.pids[0])


def queue(running: Service) -> WindowQueue:
    """The engine's, of the length that is sent here."""
    engine: PocketSphinxEngine = running.engine  # type: ignore[assignment]
    return engine.short if 4 * MIB / 32_000 <= SHORT_SECONDS else engine.long
