"""Quotas, overload and abuse through the whole service: the refusals, and that the Python client waits as they say."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from pydantic import SecretStr

from aligner_client import Aligner, AsyncAligner, AudioEncoding, ResourceExhaustedError, RetryPolicy
from aligner_client.api.v1 import aligner_pb2
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_svc.config.engine import EngineSettings
from aligner_svc.config.protection import AbuseSettings, QuotaSettings
from aligner_svc.server import StartError
from tests.kit.guarded import Home, bearer, info
from tests.kit.recordings import SPEECH, TRANSCRIPT, samples, silence_flac
from tests.kit.redis_server import RedisServer, redis_server  # noqa: F401 - a fixture
from tests.kit.refusals import refusal
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, connect, service, serving
from tests.kit.uploads import stream
from tests.kit.waiting import eventually, loop_turns

CONFIG = aligner_pb2.AlignConfig(transcript=TRANSCRIPT, language="en")
ALIGN = aligner_pb2.AlignRequest(config=CONFIG, audio=SPEECH)
SECONDS = 4.905
"""Of the recording."""


def quotas(folder: Path, text: str) -> QuotaSettings:
    path = folder / "quotas.toml"
    path.write_text(text)
    return QuotaSettings(file=path)


async def refused(call) -> tuple[grpc.aio.AioRpcError, error_details_pb2.QuotaFailure]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    failure = error_details_pb2.QuotaFailure()
    status = rpc_status.from_call(error.value)
    for detail in status.details if status else ():
        detail.Unpack(failure)
    return error.value, failure


async def test_a_long_transcript_is_charged_even_if_it_is_refused(tmp_path) -> None:
    """Of 200,000 characters all but 5,000 cost as much as 78 s of audio: 3 s are left, too few for the recording."""
    limits = quotas(tmp_path, "[classes.default]\naudio_seconds_per_day = 81\n")
    config = aligner_pb2.AlignConfig(transcript="a " * 100_000, language="en")
    async with serving(engine=ScriptedEngine(), quota=limits) as running, calling(running.address) as stub:
        error, _ = await refused(stub.Align(aligner_pb2.AlignRequest(config=config, audio=SPEECH)))
        assert refusal(error).code.name == "INVALID_ARGUMENT"
        assert refusal((await refused(stub.Align(ALIGN)))[0]).reason == "QUOTA_EXCEEDED"


async def test_requests_and_what_is_left_of_them(tmp_path) -> None:
    limits = quotas(tmp_path, "[classes.default]\nrequests_per_second = 0.5\nburst = 3\n")
    async with serving(engine=ScriptedEngine(), quota=limits) as running, calling(running.address) as stub:
        for left in (2, 1, 0):
            call = stub.GetServerInfo(aligner_pb2.GetServerInfoRequest())
            await call
            assert dict(await call.trailing_metadata())["ratelimit"] == f'"requests_per_second";r={left}'
        error, failure = await refused(stub.Align(ALIGN))
        reported = refusal(error)
        assert (reported.code.name, reported.reason) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
        assert 0 < reported.retry_seconds <= 2
        [violation] = failure.violations
        assert (violation.subject, violation.quota_metric) == ("peer:127.0.0.1", "requests_per_second")
        trailing = dict(error.trailing_metadata())
        assert 0 < int(trailing["grpc-retry-pushback-ms"]) <= 2000
        assert trailing["retry-after"] in {"1", "2"}
        assert trailing["ratelimit"].startswith('"requests_per_second";r=0;t=')
        async with connect(running.address) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert (await check).status == health_pb2.HealthCheckResponse.SERVING


async def test_audio_is_charged_by_what_it_turns_out_to_be(tmp_path) -> None:
    """A FLAC of 4.9 s and 80 kB is taken for 5 s at first; the caller is charged 4.905 s in the end, and a bad file nothing."""
    limits = quotas(tmp_path, "[classes.default]\naudio_seconds_per_minute = 12\n")
    engine = ScriptedEngine()
    async with serving(engine=engine, quota=limits) as running, calling(running.address) as stub:

        async def left(call) -> int:
            await call
            return int(dict(await call.trailing_metadata())["ratelimit"].partition("r=")[2])

        assert await left(stub.Align(ALIGN)) in {7, 8}  # 12 - 4.9, and some came back meanwhile
        bad = aligner_pb2.AlignRequest(config=CONFIG, audio=b"no audio" * 10_000)
        assert (await refused(stub.Align(bad)))[0].code() == grpc.StatusCode.INVALID_ARGUMENT
        await stub.Align(ALIGN)
        error, failure = await refused(stub.Align(ALIGN))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert failure.violations[0].quota_metric == "audio_seconds_per_minute"
    assert len(engine.started) == 2


async def test_a_file_that_holds_more_than_it_seems_never_reaches_the_engine(tmp_path) -> None:
    """Three minutes of silence in some kilobytes of FLAC: seen once it is decoded, and refused then."""
    limits = quotas(tmp_path, "[classes.default]\naudio_seconds_per_minute = 60\n")
    engine = ScriptedEngine()
    async with serving(engine=engine, quota=limits) as running, calling(running.address) as stub:
        error, _ = await refused(stub.Align(aligner_pb2.AlignRequest(config=CONFIG, audio=silence_flac(180))))
        reported = refusal(error)
        assert (reported.reason, reported.retry_seconds) == ("QUOTA_TOO_SMALL", None)
        assert engine.started == []
        assert (await stub.Align(ALIGN)).words  # and nothing of it was kept


async def test_a_stream_is_stopped_when_its_quota_is_spent(tmp_path) -> None:
    """Headerless audio is charged as it arrives: 20 s a minute, and a sender that does not stop."""
    limits = quotas(tmp_path, "[classes.default]\naudio_seconds_per_minute = 20\nstreams_in_flight = 1\n")
    second = samples().tobytes()[:32_000]
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            yield second
            sent += 1
            await loop_turns()

    headerless = {"encoding": AudioEncoding.LINEAR16, "sample_rate_hz": 16_000}
    async with serving(engine=ScriptedEngine(), quota=limits) as running, AsyncAligner(running.address) as aligner:
        with pytest.raises(ResourceExhaustedError) as error:
            await asyncio.wait_for(aligner.stream_align(endless(), TRANSCRIPT, **headerless), 60)
        assert error.value.reason == "QUOTA_EXCEEDED"
        assert "audio_seconds_per_minute" in error.value.message
        assert sent < 400

        # The slot is free again: the next is refused for its audio, and not for a stream in flight.
        with pytest.raises(ResourceExhaustedError, match="audio_seconds_per_minute"):
            await asyncio.wait_for(aligner.stream_align(endless(), TRANSCRIPT, **headerless), 60)


async def test_a_stream_whose_client_vanishes_frees_its_slot(tmp_path) -> None:
    """The connection is gone in the middle of an upload."""
    limits = quotas(tmp_path, "[classes.default]\nstreams_in_flight = 1\n")
    head = aligner_pb2.StreamAlignRequest(config=CONFIG)
    async with serving(engine=ScriptedEngine(), quota=limits) as running:
        async with calling(running.address) as vanishing:
            call = vanishing.StreamAlign()
            await call.write(head)
            await call.write(aligner_pb2.StreamAlignRequest(audio=SPEECH[:40_000]))
            await call.read()  # progress
        async with calling(running.address) as stub:
            failures = []

            async def let_in() -> bool:
                failures.append((await refused(stream(stub, [head])))[1].violations)
                return not failures[-1]

            await eventually(let_in, "the slot to be free")
            assert {violation.quota_metric for some in failures for violation in some} <= {"streams_in_flight"}


async def test_calls_in_flight(tmp_path) -> None:
    limits = quotas(tmp_path, "[classes.default]\ncalls_in_flight = 2\n")
    engine = ScriptedEngine()
    engine.gate.clear()
    async with serving(engine=engine, quota=limits) as running, calling(running.address) as stub:
        held = [asyncio.ensure_future(stub.Align(ALIGN)) for _ in range(2)]
        await eventually(lambda: len(engine.started) == 2, "both calls to be at work")
        error, failure = await refused(stub.Align(ALIGN))
        assert failure.violations[0].quota_metric == "calls_in_flight"
        assert refusal(error).retry_seconds == 1.0
        held[0].cancel()  # a caller that leaves frees its place

        async def let_in() -> bool:
            return await stub.GetServerInfo(aligner_pb2.GetServerInfoRequest()).code() == grpc.StatusCode.OK

        await eventually(let_in, "the place to be free")
        engine.gate.set()
        assert (await held[1]).words


@pytest.mark.parametrize("where", ["at the start", "while nothing is sent", "in the upload", "in the engine"])
async def test_a_cancelled_call_frees_its_slots_in_redis_at_once(tmp_path, redis_server: RedisServer, where) -> None:  # noqa: F811
    """It used to take until the next refresh, up to 10 s."""
    limits = quotas(tmp_path, f"# {where}\n[classes.default]\ncalls_in_flight = 50\n")
    limits = limits.model_copy(update={"redis": SecretStr(redis_server.url)})
    engine = ScriptedEngine()
    engine.gate.clear()
    slots = "quota:{peer:127.0.0.1}:slots:calls_in_flight"
    async with serving(engine=engine, quota=limits) as running, connect(running.address) as channel:
        half_open = channel.stream_unary("/aligner.v1.Aligner/Align")
        stub = AlignerStub(channel)
        for _ in range(10):
            match where:
                case "in the engine":
                    call = stub.Align(ALIGN)
                    await engine.at_gate.acquire()
                case "in the upload":
                    call = stub.StreamAlign()
                    await call.write(aligner_pb2.StreamAlignRequest(config=CONFIG))
                case _:
                    call = half_open()
            if where != "at the start":
                await eventually(lambda: redis_server.command("ZCARD", slots) == ":1\r\n", "the slot to be taken")
            call.cancel()
            await eventually(lambda: redis_server.command("ZCARD", slots) == ":0\r\n", "the slot to be free", timeout=5.0)
        engine.gate.set()


async def test_the_client_waits_for_the_time_to_retry(tmp_path) -> None:
    limits = quotas(tmp_path, "[classes.default]\nrequests_per_second = 2\nburst = 1\n")
    async with serving(engine=ScriptedEngine(), quota=limits) as running:

        def three() -> int:
            with Aligner(running.address, retry=RetryPolicy(attempts=5)) as aligner:
                return sum(bool(aligner.align(SPEECH, TRANSCRIPT).words) for _ in range(3))

        assert await asyncio.to_thread(three) == 3

        def once() -> None:
            with Aligner(running.address, retry=RetryPolicy(attempts=1)) as aligner:
                for _ in range(3):
                    aligner.server_info()

        with pytest.raises(ResourceExhaustedError) as error:
            await asyncio.to_thread(once)
        assert error.value.reason == "QUOTA_EXCEEDED"
        assert 0 < error.value.retry_after <= 0.5


async def test_two_servers_on_one_redis_share_a_limit(tmp_path, redis_server: RedisServer) -> None:  # noqa: F811
    """Redis goes and comes back: no call fails, and each server grants its half meanwhile."""
    limits = quotas(tmp_path, "[classes.default]\nrequests_per_second = 0.01\nburst = 20\n")
    limits = limits.model_copy(update={"redis": SecretStr(redis_server.url), "replicas": 2})
    request = aligner_pb2.GetServerInfoRequest()
    async with AsyncExitStack() as stack:
        stubs = []
        for _ in range(2):
            running = await stack.enter_async_context(serving(engine=ScriptedEngine(), quota=limits))
            stubs.append(await stack.enter_async_context(calling(running.address)))

        async def granted(tries: int) -> int:
            codes = [await stubs[number % 2].GetServerInfo(request).code() for number in range(tries)]
            assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
            return codes.count(grpc.StatusCode.OK)

        assert await granted(30) == 20
        redis_server.kill()
        assert await granted(30) == 20  # 10 of each server's own
        redis_server.restart()


async def test_an_overloaded_server_refuses_at_once_and_stays_healthy() -> None:
    """The engine does nothing for a while: calls beyond what it and its queue hold are refused with a time to retry."""
    engine = ScriptedEngine()
    engine.gate.clear()
    settings = EngineSettings(workers=1, queue=4)
    async with serving(engine=engine, engine_settings=settings) as running, calling(running.address) as stub:
        calls = [stub.Align(ALIGN) for _ in range(40)]
        codes: list[grpc.StatusCode] = []
        waiting = [asyncio.ensure_future(call.code()) for call in calls]
        await eventually(lambda: sum(one.done() for one in waiting) >= 30, "the rest to be refused")
        async with connect(running.address) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert (await check).status == health_pb2.HealthCheckResponse.SERVING
        engine.gate.set()
        codes = [await one for one in waiting]
        assert codes.count(grpc.StatusCode.OK) >= 4
        refusals = [call for call, code in zip(calls, codes, strict=True) if code is not grpc.StatusCode.OK]
        error, _ = await refused(refusals[0])
        reported = refusal(error)
        assert (reported.code.name, reported.reason) == ("UNAVAILABLE", "SERVER_OVERLOADED")
        assert reported.retry_seconds > 0


async def test_an_address_that_does_nothing_but_fail_is_blocked(tmp_path) -> None:
    home = Home(tmp_path, methods=("jwt",), mtls=False)
    abuse = AbuseSettings(failures_per_minute=3, trusted=())
    async with home.serving(abuse=abuse) as running, home.connect(running) as channel:
        await info(channel, bearer(home.forge.token()))
        for _ in range(4):
            assert refusal((await refused(info(channel, bearer("unknown"))))[0]).reason == "CREDENTIALS_INVALID"
        reported = refusal((await refused(info(channel, bearer(home.forge.token()))))[0])
        assert (reported.code.name, reported.reason) == ("UNAVAILABLE", "PEER_BLOCKED")
        assert 0 < reported.retry_seconds <= 30
        check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert (await check).status == health_pb2.HealthCheckResponse.SERVING
        await eventually(lambda: any(event["event"] == "peer_blocked" for event in home.events()), "the record of the block")


async def test_shadow_mode_blocks_no_peer(tmp_path) -> None:
    home = Home(tmp_path, methods=("jwt",), mtls=False)
    abuse = AbuseSettings(failures_per_minute=3, trusted=(), shadow=True)
    async with home.serving(abuse=abuse) as running, home.connect(running) as channel:
        for _ in range(6):
            await refused(info(channel, bearer("unknown")))
        await info(channel, bearer(home.forge.token()))
        await eventually(lambda: any(event["event"] == "peer_would_block" for event in home.events()), "the record")


async def test_a_bad_quota_file_stops_the_start_and_a_bad_change_does_not(tmp_path) -> None:
    good = "[classes.default]\nrequests_per_second = 100\nburst = 100\n"
    bad = good.replace("burst", "brust")
    with pytest.raises(StartError, match=r"quotas\.toml, line 3: .*burst"):
        service(engine=ScriptedEngine(), quota=quotas(tmp_path, bad))
    (tmp_path / "home").mkdir()
    home = Home(tmp_path / "home", methods=("jwt",), mtls=False)
    async with home.serving(quota=quotas(tmp_path, good)) as running, home.connect(running) as channel:
        (tmp_path / "quotas.toml").write_text(bad)
        await eventually(lambda: any(event["event"] == "policy_reload_failed" for event in home.events()), "the bad file")
        await info(channel, bearer(home.forge.token()))
        (tmp_path / "quotas.toml").write_text(good.replace("100", "1"))
        await eventually(lambda: any(event["event"] == "policy_changed" for event in home.events()), "the new file")
        await eventually(lambda: _refuses(channel, home), "the new limit")


async def _refuses(channel: grpc.aio.Channel, home: Home) -> bool:
    return await info(channel, bearer(home.forge.token())).code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_recording_of_more_than_a_minute_counts_among_the_long_calls() -> None:
    engine = ScriptedEngine()
    engine.gate.clear()
    async with serving(engine=engine) as running, calling(running.address) as stub:
        calls = [stub.Align(aligner_pb2.AlignRequest(config=CONFIG, audio=audio)) for audio in (SPEECH, silence_flac(61))]
        await eventually(lambda: len(engine.started) == 2, "both at work")
        counts = running._guards.protection.overload.counts
        assert (counts.at_work, counts.long) == (1, 1)
        engine.gate.set()
        await asyncio.gather(*calls)
