"""A real server tells whether it takes calls and what it does without, while that goes and comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aligner_client.api.v1 import aligner_pb2
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_svc.config.protection import AntivirusSettings, QuotaSettings
from aligner_svc.config.telemetry import MetricsSettings
from aligner_svc.server import Service
from interceptors.auth.api_keys import format as api_key
from tests.kit.clamd_server import ClamdServer, clamav, clamd_server  # noqa: F401 - fixtures
from tests.kit.guarded import Home, bearer, denied, info, with_key
from tests.kit.recordings import SPEECH, TRANSCRIPT
from tests.kit.redis_server import PASSWORD, RedisServer, redis_server  # noqa: F401 - a fixture
from tests.kit.refusals import refusal
from tests.kit.scripted_engine import ScriptedEngine
from tests.kit.servers import calling, connect, service, serving
from tests.kit.waiting import eventually

METRICS = MetricsSettings(listen="127.0.0.1:0")


async def asked(server: Service) -> tuple[int, dict[str, dict[str, str]]]:
    """The status, and findings by check."""
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"http://{server.metrics_address}/ready")
    report = answer.json()
    assert report["ready"] is (answer.status_code == 200)
    assert PASSWORD not in answer.text
    return answer.status_code, {one["check"]: one for one in report["findings"]}


async def metric(server: Service, name: str) -> str:
    async with httpx.AsyncClient(trust_env=False) as http:
        lines = (await http.get(f"http://{server.metrics_address}/metrics")).text.splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name} "))


async def align(channel: grpc.aio.Channel) -> aligner_pb2.AlignResponse:
    config = aligner_pb2.AlignConfig(transcript=TRANSCRIPT, language="en")
    return await AlignerStub(channel).Align(aligner_pb2.AlignRequest(config=config, audio=SPEECH))


async def becomes(server: Service, check: str, state: str) -> dict[str, str]:
    """The finding, once its state is that; the server is ready all the while."""
    last: dict[str, Any] = {}

    async def found() -> bool:
        status, findings = await asked(server)
        assert status == 200, findings
        last.update(findings[check])
        return findings[check]["state"] == state

    await eventually(found, f"{check} to be {state}; it is {last}")
    return last


async def test_the_store_of_the_quotas_goes_and_comes_back(tmp_path, redis_server: RedisServer) -> None:  # noqa: F811
    home = Home(tmp_path, methods=("jwt",), mtls=False)
    quota = QuotaSettings(file=home.quotas, redis=redis_server.url)
    async with home.serving(metrics=METRICS, quota=quota) as running, home.connect(running) as channel:
        there = await becomes(running, "redis", "ok")
        assert there["said"] == f"redis://127.0.0.1:{redis_server.port}/0: it answers"
        redis_server.kill()
        await info(channel, bearer(home.forge.token()))  # which finds out, and is answered
        away = await becomes(running, "redis", "warn")
        assert away["said"] == f"redis://127.0.0.1:{redis_server.port}/0 cannot be reached"
        assert "each server counts its own share" in away["hint"]
        redis_server.start()
        await becomes(running, "redis", "ok")
        _, findings = await asked(running)
    assert {name: one["state"] for name, one in findings.items()} == dict.fromkeys(
        ("server", "workers", "tls", "jwks", "redis"), "ok"
    )


async def test_the_scanner_goes_and_comes_back(clamav: ClamdServer) -> None:  # noqa: F811
    antivirus = AntivirusSettings(address=clamav.unix, stream_max_bytes=clamav.stream_max_bytes, fail_open=True)
    parts = {"metrics": METRICS, "engine": ScriptedEngine(), "antivirus": antivirus}
    async with serving(**parts) as running, calling(running.address) as stub:
        await becomes(running, "clamd", "ok")
        clamav.kill()
        config = aligner_pb2.AlignConfig(transcript=TRANSCRIPT, language="en")
        await stub.Align(aligner_pb2.AlignRequest(config=config, audio=SPEECH))  # which finds out, and passes
        assert (await becomes(running, "clamd", "warn"))["hint"] == "is it up? Until it answers, uploads pass unscanned"
        clamav.start()
        await becomes(running, "clamd", "ok")


async def test_worker_processes_die_and_are_replaced() -> None:
    async with serving(metrics=METRICS, engine=ScriptedEngine(), decoders=2) as running:
        said = (await becomes(running, "workers", "ok"))["said"]
        assert said == "decoder: 2 worker processes"  # those for long recordings start with the first
        pool = running.decoder.pool
        children = pool._children
        module, children.module = children.module, "no_such_module"  # no process can replace it
        os.kill(pool.pids[0], signal.SIGKILL)
        assert (await becomes(running, "workers", "warn"))["said"] == "decoder: 1 of 2 worker processes are up"
        children.module = module
        await becomes(running, "workers", "ok")


@pytest.mark.parametrize("fault", ["none starts", "all stop"])
@pytest.mark.parametrize("name", ["decoder", "engine"])
async def test_without_a_working_process_it_serves_nowhere_and_then_everywhere_again(
    name: str, fault: str, tmp_path, monkeypatch
):
    """Health, /ready and the metric tell the same, while calls are refused with a time to retry."""
    (tmp_path / "stops.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)")
    monkeypatch.syspath_prepend(tmp_path)
    async with serving(metrics=METRICS) as running, connect(running.address) as channel:
        children = {"decoder": running.decoder, "engine": running.engine.short}[name].pool._children
        watch = aiter(health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()))
        assert (await anext(watch)).status == health_pb2.HealthCheckResponse.SERVING
        module, children.module = children.module, {"none starts": "no_such_module", "all stop": "stops"}[fault]
        for child in children.alive:
            os.kill(child.pid, signal.SIGKILL if fault == "none starts" else signal.SIGSTOP)
        assert (await anext(watch)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        status, findings = await asked(running)
        assert status == 503
        assert "no worker process" in findings["server"]["said"]
        assert await metric(running, "aligner_ready") == "0.0"
        if fault == "none starts":
            with pytest.raises(grpc.RpcError) as error:
                await align(channel)
            assert refusal(error.value).retry_seconds == 1.0
        children.module = module
        assert (await anext(watch)).status == health_pb2.HealthCheckResponse.SERVING
        assert (await asked(running))[0] == 200
        assert await metric(running, "aligner_ready") == "1.0"
        assert (await align(channel)).words


async def test_a_server_that_loads_its_models_is_not_ready() -> None:
    engine = ScriptedEngine()
    engine.warm.clear()
    loading = service(metrics=METRICS, engine=engine)
    starting = asyncio.create_task(loading.start())
    try:
        await eventually(lambda: bool(loading.metrics_address), "the port of the metrics to open")
        status, findings = await asked(loading)
        assert (status, findings["server"]["said"]) == (503, "it is NOT_SERVING: it is starting")
        engine.warm.set()
        await starting
        assert (await asked(loading))[0] == 200
    finally:
        engine.warm.set()
        await asyncio.gather(starting, return_exceptions=True)
        await loading.close()


async def test_the_database_of_keys_goes_and_comes_back(tmp_path) -> None:
    home = Home(tmp_path, methods=("api_key",), mtls=False)
    async with home.serving(metrics=METRICS) as running, home.connect(running) as channel:
        key = await home.new_key("align")
        await info(channel, with_key(key))
        there = await becomes(running, "keys", "ok")
        assert there["said"] == f"{tmp_path}/keys.db: it answers"
        (tmp_path / "keys.db").rename(tmp_path / "elsewhere.db")
        await denied(info(channel, with_key(api_key.new("alk"))))  # not cached, so the database is queried
        away = await becomes(running, "keys", "fail")
        assert "known keys stay valid" in away["hint"]
        await info(channel, with_key(key))
        (tmp_path / "elsewhere.db").rename(tmp_path / "keys.db")
        await becomes(running, "keys", "ok")


async def test_a_server_that_drains_is_not_ready() -> None:
    engine = ScriptedEngine()
    draining = service(metrics=METRICS, engine=engine)
    await draining.start()
    async with calling(draining.address) as stub:
        engine.gate.clear()
        config = aligner_pb2.AlignConfig(transcript=TRANSCRIPT, language="en")
        call = stub.Align(aligner_pb2.AlignRequest(config=config, audio=SPEECH))
        await engine.at_gate.acquire()
        ending = asyncio.create_task(draining.drain())

        async def not_ready() -> bool:
            return (await asked(draining))[0] == 503

        await eventually(not_ready, "the drain to show")
        engine.gate.set()
        await call
        await ending
