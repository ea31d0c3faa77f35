"""Metrics of the whole service agree with what its callers counted, one by one."""

from __future__ import annotations

from collections import Counter

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from aligner_svc.api.v1 import aligner_pb2
from aligner_svc.api.v1.aligner_pb2_grpc import AlignerStub
from aligner_svc.server import Service
from aligner_svc.telemetry_settings import MetricsSettings
from tests.e2e.guarded import Home, bearer, info
from tests.e2e.recordings import SPEECH, TRANSCRIPT
from tests.e2e.servers import calling, serving, until

ALIGN = aligner_pb2.AlignRequest(config=aligner_pb2.AlignConfig(transcript=TRANSCRIPT, language="en"), audio=SPEECH)
METRICS = MetricsSettings(listen="127.0.0.1:0")


async def scraped(server: Service) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by the name of a series and by its labels' values."""
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"http://{server.metrics_address}/metrics", headers={"accept": "text/plain"})
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
            await info(channel, bearer("nobody")).code()
            seen += 1
        running.engine.gate.clear()
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Align(ALIGN, metadata=good, timeout=0.3)
        seen += 1
        await until(lambda: running.engine.cancelled == 1, "the server to see that as well")
        running.engine.gate.set()
        await channel.unary_unary("/aligner.v1.Aligner/Nothing")(b"", metadata=good).code()
        seen += 1

        async def all_counted() -> bool:
            return sum((await handled(running)).values()) == seen

        await until(all_counted, f"{seen} calls to be counted")
        values = await scraped(running)
    assert sum(values["grpc_server_started_total"].values()) == seen
    assert sum(values["aligner_auth_failures_total"].values()) == 3
    assert sum(values["aligner_audio_seconds_count"].values()) == 1
    [audio] = values["aligner_audio_seconds_sum"].values()
    assert round(audio, 3) == 4.905


async def test_the_engine_the_workers_and_the_guards_are_seen() -> None:
    async with serving(metrics=METRICS) as running, calling(running.address) as stub:
        await stub.Align(ALIGN)
        values = await scraped(running)
    assert sum(values["aligner_engine_busy_seconds_total"].values()) > 0
    assert sum(values["aligner_batch_items_count"].values()) >= 1
    assert list(values["aligner_engine_lanes"].values()) == [1]
    assert {name for name in values if name.startswith("aligner_worker")}
    assert [value for labels, value in values["aligner_stage_seconds_count"].items() if labels == ("decode",)] == [1]


async def test_without_a_port_there_are_none() -> None:
    async with serving() as running:
        assert running.metrics_address == ""
