"""The engine on a real Ray cluster of two nodes on loopback, with its token and TLS on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from aligner_svc.config.engine import EngineSettings
from aligner_svc.domain import Caller, Clip
from aligner_svc.engines.base import Engine, EngineResult
from aligner_svc.engines.pocketsphinx.engine import PocketSphinxEngine
from aligner_svc.engines.ray_serve.engine import RayEngine, build
from aligner_svc.engines.ray_serve.ports import Answer, open_ports
from aligner_svc.errors import UnavailableError
from samples.request import SAMPLE
from tests.kit.ray_cluster import RayCluster, ray_cluster
from tests.kit.recordings import samples
from tests.kit.waiting import eventually

TEXT = SAMPLE.with_suffix(".txt").read_text().strip()

WITHOUT_CALLS = {"DashboardAgent", "RuntimeEnvAgent", "dashboard.py", "monitor.py"}
"""Metrics, and agents of Ray's, over HTTP."""

Reports = list[str | None]

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.asyncio(loop_scope="module"),  # one engine for all: it takes 5 s to start
    pytest.mark.timeout(300),  # a cluster takes 20 s to start; on a machine that does three other things at once, 80
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(replicas=2, most=2) as made:
        made.up()
        made.join()
        made.deploy()
        yield made


@pytest.fixture(scope="module")
def reports() -> Reports:
    return []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(cluster: RayCluster, reports: Reports) -> AsyncIterator[RayEngine]:
    made = build(cluster.settings, reports.append, None)
    await made.start()
    yield made
    await made.close()


async def test_words_are_to_the_millisecond_those_of_the_engine_in_one_process(engine: RayEngine) -> None:
    here = PocketSphinxEngine(EngineSettings(workers=1))
    await here.start()
    try:
        assert (await aligned(engine)).spans == (await aligned(here)).spans
    finally:
        await here.close()


async def test_a_long_transcript_is_cut_into_words_on_the_cluster(engine: RayEngine) -> None:
    assert len(await engine.tokenise("word " * 2000, "en")) == 2000


@pytest.mark.usefixtures("engine")
async def test_a_stranger_is_asked_for_a_certificate_by_every_port_that_takes_calls() -> None:
    ports = await asyncio.to_thread(open_ports)
    assert {"ServeReplica", "gcs_server", "raylet"} <= {port.process for port in ports}
    assert {port.process for port in ports if port.answer is not Answer.SECURED} <= WITHOUT_CALLS
    assert {port.process for port in ports if port.everywhere} <= {"ServeReplica"}


async def test_no_call_is_lost_with_a_replica_nor_with_a_node(cluster: RayCluster, engine: RayEngine) -> None:
    calls = [asyncio.create_task(aligned(engine)) for _ in range(12)]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    os.kill(cluster.replicas()[0], signal.SIGKILL)
    calls += [asyncio.create_task(aligned(engine)) for _ in range(12)]
    await asyncio.wait(calls[12:], return_when=asyncio.FIRST_COMPLETED)
    cluster.kill_node()
    assert len({len(result.spans) for result in await asyncio.gather(*calls)}) == 1


async def test_without_its_head_calls_are_unavailable_until_it_is_back(
    cluster: RayCluster, engine: RayEngine, reports: Reports
) -> None:
    cluster.kill_head()
    with pytest.raises(UnavailableError) as refused:
        await aligned(engine, within=30.0)
    assert refused.value.reason == "ENGINE_UNAVAILABLE"
    await eventually(lambda: reports[-1] is not None)
    await asyncio.to_thread(cluster.up, 2)
    await asyncio.to_thread(cluster.deploy)
    await eventually(lambda: reports[-1] is None)
    assert (await aligned(engine)).spans


async def aligned(engine: Engine, within: float = 60.0) -> EngineResult:
    """The sample recording, by a caller that waits for so long."""
    tokens = await engine.tokenise(TEXT, "en")
    clip = Clip(samples())
    return await engine.align(clip, tokens, "en", Caller("me", asyncio.get_running_loop().time() + within))
