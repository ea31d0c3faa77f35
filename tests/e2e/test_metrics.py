"""Metrics of the whole service agree with what its callers counted, one by one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from aligner_client.api.v1 import aligner_pb2
from aligner_client.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_svc.config.protection import AntivirusSettings
from aligner_svc.config.telemetry import MetricsSettings
from aligner_svc.server import Service
from tests.kit.clamd_server import ClamdServer, clamav, clamd_server  # noqa: F401 - fixtures
from tests.kit.daemon import free_port
from tests.kit.guarded import Home, bearer, info, with_key
from tests.kit.recordings import SPEECH, TRANSCRIPT
from tests.kit.servers import ALIGNER, calling, environment, serving
from tests.kit.waiting import eventually

ALIGN = aligner_pb2.AlignRequest(config=aligner_pb2.AlignConfig(transcript=TRANSCRIPT, language="en"), audio=SPEECH)
METRICS = MetricsSettings(listen="127.0.0.1:0")


async def scraped(server: Service) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by the name of a series and by its labels' values."""
    return await scraped_at(server.metrics_address)


async def scraped_at(address: str) -> dict[str, dict[tuple[str, ...], float]]:
    """As `scraped`, of any process."""
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"http://{address}/metrics", headers={"accept": "text/plain"})
    assert answer.status_code == 200
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


async def handled(server: Service) -> Counter[str]:
    """Calls that ended, by code."""
    ended: Counter[str] = Counter()
    for labels, value in (await scraped(server)).get("grpc_server_handled_total", {}).items():
        code = next(label for label in labels if label in grpc.StatusCode.__members__ or label == "OK" or label[0].isupper())
        if value:
            ended[code] += int(value)
    return ended


async def test_what_is_counted_is_what_the_callers_saw(tmp_path) -> None:
    home = Home(tmp_path, methods=("jwt",), mtls=False)
    seen = 0
    async with home.serving(metrics=METRICS) as running, home.connect(running) as channel:
        good = [bearer(home.forge.token())]
        stub = AlignerStub(channel)
        for request in (ALIGN, aligner_pb2.AlignRequest(config=ALIGN.config)):
            await stub.Align(request, metadata=good).code()
            seen += 1
        for _ in range(3):
            await info(channel, bearer("unknown")).code()
            seen += 1
        running.engine.gate.clear()
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Align(ALIGN, metadata=good, timeout=2.0)
        seen += 1
        await eventually(lambda: running.engine.cancelled == 1, "the server to see that as well")
        running.engine.gate.set()
        await channel.unary_unary("/aligner.v1.Aligner/Nothing")(b"", metadata=good).code()
        seen += 1

        async def all_counted() -> bool:
            return sum((await handled(running)).values()) == seen

        await eventually(all_counted, f"{seen} calls to be counted")
        values = await scraped(running)
    assert sum(values["grpc_server_started_total"].values()) == seen
    assert sum(values["aligner_auth_failures_total"].values()) == 3
    # Of the two that were let in: the one that was given up had been decoded.
    assert sum(values["aligner_audio_seconds_count"].values()) == 2
    [audio] = values["aligner_audio_seconds_sum"].values()
    assert round(audio, 3) == 2 * 4.905


async def test_the_engine_the_workers_and_the_guards_are_seen() -> None:
    async with serving(metrics=METRICS) as running, calling(running.address) as stub:
        await stub.Align(ALIGN)
        values = await scraped(running)
    assert sum(values["aligner_engine_busy_seconds_total"].values()) > 0
    assert sum(values["aligner_batch_items_count"].values()) >= 1
    assert list(values["aligner_engine_lanes"].values()) == [1]
    assert {name for name in values if name.startswith("aligner_worker")}
    assert [value for labels, value in values["aligner_stage_seconds_count"].items() if labels == ("decode",)] == [1]


async def test_several_worker_processes_make_one_set_of_numbers() -> None:
    """Each call is counted once, whichever process works on it, and so is a process that is killed."""
    calls = 6
    async with serving(workers=2, decoders=2, metrics=METRICS) as running, calling(running.address) as stub:
        await asyncio.gather(*(stub.Align(ALIGN) for _ in range(calls)))
        os.kill(running.engine.short.pool.pids[0], signal.SIGKILL)
        pool = running.engine.short.pool
        await eventually(lambda: pool.restarts == 1 and len(pool.pids) == 2, "another process")
        await asyncio.gather(*(stub.Align(ALIGN) for _ in range(calls)))
        values = await scraped(running)
    assert values["aligner_engine_lanes"] == {(): 2}
    up = {("decoder",): 2, ("decoder-long",): 0, ("pocketsphinx",): 2, ("pocketsphinx-long",): 0}  # no recording was long
    assert values["aligner_workers"] == values["aligner_workers_wanted"] == up
    assert values["aligner_worker_restarts_total"] == {
        ("decoder",): 0,
        ("decoder-long",): 0,
        ("pocketsphinx",): 1,
        ("pocketsphinx-long",): 0,
    }
    assert values["aligner_audio_seconds_count"] == {(): 2 * calls}
    assert round(values["aligner_audio_seconds_sum"][()], 2) == round(2 * calls * 4.905, 2)
    stages = values["aligner_stage_seconds_count"]
    assert stages["decode",] == stages["align",] == 2 * calls
    assert values["aligner_batch_items_sum"] == {(): 2 * calls}
    busy = values["aligner_engine_busy_seconds_total"][()]
    assert busy > 0


def test_worker_processes_have_nothing_to_count_with() -> None:
    """Worker processes load no metrics: the numbers are those of the server's own process."""
    modules = ("aligner_svc.audio.decode_worker", "aligner_svc.engines.pocketsphinx.worker")
    code = f"import sys, {', '.join(modules)}; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


async def test_look_ups_of_tokens_and_verdicts_are_counted(tmp_path, clamav: ClamdServer) -> None:  # noqa: F811
    home = Home(tmp_path, methods=("jwt",), mtls=False)
    antivirus = AntivirusSettings(address=clamav.unix, stream_max_bytes=clamav.stream_max_bytes)
    async with home.serving(metrics=METRICS, antivirus=antivirus) as running, home.connect(running) as channel:
        token = [bearer(home.forge.token())]
        for _ in range(3):
            await AlignerStub(channel).Align(ALIGN, metadata=token)
        values = await scraped(running)
    assert values["aligner_cache_hits_total"] == {("tokens",): 2, ("verdicts",): 2}
    assert values["aligner_cache_misses_total"] == {("tokens",): 1, ("verdicts",): 1}
    assert values["aligner_cache_entries"] == {("tokens",): 1, ("verdicts",): 1}


async def test_look_ups_of_keys_are_counted(tmp_path) -> None:
    home = Home(tmp_path, methods=("api_key",), mtls=False)
    async with home.serving(metrics=METRICS) as running, home.connect(running) as channel:
        key = await home.new_key("align")
        for _ in range(3):
            await info(channel, with_key(key))
        values = await scraped(running)
    assert values["aligner_cache_hits_total"] == {("keys",): 2}
    assert values["aligner_cache_misses_total"] == {("keys",): 1}
    assert values["aligner_cache_entries"] == {("keys",): 1}


async def test_lines_of_the_log_that_could_not_be_written_are_counted(tmp_path) -> None:
    """The server's stderr is a disk that is full."""
    port = free_port()
    reported = tmp_path / "stdout"
    arguments = ("--workers", "1", "--listen", "127.0.0.1:0")
    full = os.open("/dev/full", os.O_WRONLY)
    with reported.open("wb") as stdout:
        variables = environment(ALIGNER_METRICS__LISTEN=f"127.0.0.1:{port}")
        process = await asyncio.create_subprocess_exec(
            ALIGNER, "serve", *arguments, cwd=tmp_path, stdout=stdout, stderr=full, env=variables
        )
    os.close(full)
    try:
        await eventually(lambda: b"ready on" in reported.read_bytes() or process.returncode is not None, "the server to be ready")
        target = reported.read_text().partition("ready on ")[2].split()[0]
        async with calling(target) as stub:
            await stub.GetServerInfo(aligner_pb2.GetServerInfoRequest())  # which leaves a line of the log

        async def counted() -> bool:
            return (await scraped_at(f"127.0.0.1:{port}"))["aligner_telemetry_dropped_total"]["log",] > 0

        await eventually(counted, "lost lines to be counted")
    finally:
        process.kill()
        await process.wait()


async def test_without_a_port_there_are_none() -> None:
    async with serving() as running:
        assert running.metrics_address == ""
