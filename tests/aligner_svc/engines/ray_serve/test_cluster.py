"""The engine on a real Ray cluster of two nodes on loopback, with its token and TLS on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from aligner_svc.config.engine import EngineSettings, QwenSettings
from aligner_svc.domain import Caller, Clip, Token
from aligner_svc.engines.base import Engine, EngineResult, LiveEngine, PhoneEngine, Span
from aligner_svc.engines.live import LiveAudio, LiveText
from aligner_svc.engines.pocketsphinx.engine import PocketSphinxEngine
from aligner_svc.engines.qwen.engine import build as build_qwen
from aligner_svc.engines.ray_serve.engine import LiveRayEngine, RayEngine, build
from aligner_svc.engines.ray_serve.ports import Answer, open_ports
from aligner_svc.errors import UnavailableError
from samples.request import SAMPLE
from tests.kit import checkpoint
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
        made.up(2)
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


async def test_words_and_phones_are_to_the_millisecond_those_of_the_engine_in_one_process(engine: RayEngine) -> None:
    here = PocketSphinxEngine(EngineSettings(workers=1))
    await here.start()
    try:
        found = (await aligned(engine, phones=True)).spans
        assert found == (await aligned(here, phones=True)).spans
        assert any(span.phones for span in found)
        assert (engine.phone_sets, engine.support) == (here.phone_sets, here.support)
    finally:
        await here.close()


async def test_a_long_transcript_is_cut_into_words_on_the_cluster(engine: RayEngine) -> None:
    assert len(await engine.tokenise("word " * 2000, "en")) == 2000


async def test_a_recording_that_is_followed_has_the_words_of_the_engine_in_one_process(engine: RayEngine) -> None:
    here = PocketSphinxEngine(EngineSettings(workers=1))
    await here.start()
    try:
        assert isinstance(engine, LiveRayEngine)
        assert await followed(engine) == await followed(here)
    finally:
        await here.close()


async def test_qwen_on_a_replica_has_the_words_of_the_engine_in_one_process(cluster: RayCluster, tmp_path: Path) -> None:
    """With a tiny checkpoint of random weights, on an application beside the other one."""
    model = checkpoint.build(tmp_path / "model")
    qwen = QwenSettings(model=str(model), device="cpu", dtype="fp32")
    ray = cluster.settings.ray.model_copy(update={"engine": "qwen", "application": "qwen", "min_replicas": 1, "max_replicas": 1})
    settings = cluster.settings.model_copy(update={"qwen": qwen, "ray": ray})
    await asyncio.to_thread(cluster.deploy, "1", settings)
    there, here = build(settings, lambda why: None, None), build_qwen(settings, lambda why: None, None)
    try:
        await asyncio.gather(there.start(), here.start())
        assert there.languages == here.languages
        assert (await aligned(there)).spans == (await aligned(here)).spans
    finally:
        await asyncio.gather(there.close(), here.close())


@pytest.mark.usefixtures("engine")
async def test_a_stranger_is_asked_for_a_certificate_by_every_port_that_takes_calls() -> None:
    ports = await asyncio.to_thread(open_ports)
    assert {"ServeReplica", "gcs_server", "raylet"} <= {port.process for port in ports}
    assert {port.process for port in ports if port.answer is not Answer.SECURED} <= WITHOUT_CALLS
    assert {port.process for port in ports if port.everywhere} <= {"ServeReplica"}


async def test_no_call_is_lost_while_another_release_is_rolled_out(cluster: RayCluster, engine: RayEngine) -> None:
    before = set(cluster.replicas())
    rolling = asyncio.create_task(asyncio.to_thread(cluster.deploy, "2"))
    words = set()

    async def caller() -> None:
        while not rolling.done():
            words.add(len((await aligned(engine)).spans))

    await asyncio.gather(rolling, *(caller() for _ in range(3)))
    assert len(words) == 1
    assert len(before - set(cluster.replicas())) == 2


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


async def aligned(engine: Engine, within: float = 60.0, *, phones: bool = False) -> EngineResult:
    """The sample recording, by a caller that waits for so long."""
    tokens = await engine.tokenise(TEXT, "en")
    clip = Clip(samples())
    align = partial(engine.align, phones=phones) if isinstance(engine, PhoneEngine) else engine.align
    return await align(clip, tokens, "en", Caller("me", asyncio.get_running_loop().time() + within))


async def followed(engine: LiveEngine) -> list[Span]:
    """The sample recording four times, in pieces."""
    tokens = list(await engine.tokenise(" ".join([TEXT] * 4), "en"))

    async def more() -> Sequence[Token]:
        given, tokens[:] = list(tokens), []
        return given

    audio = LiveAudio()
    text, found = LiveText(audio, more), list[Span]()
    text.notify(ended=True)
    following = asyncio.create_task(engine.follow(audio, text, "en", Caller("me", None), on_spans=found.extend))
    for piece in np.array_split(np.tile(samples(), 4).astype(np.float32) / 32768, 50):
        audio.append(piece)
        await asyncio.sleep(0)
    audio.end()
    await following
    return found
