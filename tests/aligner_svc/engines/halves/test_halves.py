"""Two halves of an engine, joined directly, are the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import numpy as np

from aligner_svc.config import Settings
from aligner_svc.config.engine import EngineSettings, QwenSettings
from aligner_svc.domain import Caller, Clip
from aligner_svc.engines.base import Engine
from aligner_svc.engines.halves import Half, HalfSettings, Halves, pocketsphinx, qwen
from aligner_svc.engines.qwen.devices.pool import Devices
from aligner_svc.engines.qwen.devices.wire import Item
from aligner_svc.engines.qwen.engine import QwenEngine
from aligner_svc.engines.qwen.timestamps import TimestampSlots
from aligner_svc.workers import JsonValue
from aligner_svc.workers.pool import Reply

SETTINGS = Settings(engine=EngineSettings(workers=1), qwen=QwenSettings(device="cpu", batch_items=4))
FAR = HalfSettings(SETTINGS.engine, SETTINGS.qwen, "best-effort")
CLIP = Clip(np.random.default_rng(0).normal(0, 500, 24_002).astype(np.int16))
DEVICE = "tests.kit.qwen_device"


class Direct:
    """Lanes without a way; keeps who called."""

    at_once = 16

    def __init__(self, far: Half) -> None:
        self._far = far
        self.callers: list[tuple[str, float]] = []

    def lane(self, name: str) -> DirectLane:
        return DirectLane(self, name)

    async def call(self, name: str, header: Mapping[str, JsonValue], payload, seconds: float, client: str) -> Reply:
        self.callers.append((client, seconds))
        deadline = asyncio.get_running_loop().time() + seconds
        return await self._far.call(name, header, bytes(payload), Caller(client, deadline))


class DirectLane:
    def __init__(self, lanes: Direct, name: str) -> None:
        self._lanes = lanes
        self._name = name

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def call(self, header, payload=b"", *, timeout: float, client: str = "") -> Reply:  # noqa: ASYNC109 - as WorkerPool's
        return await self._lanes.call(self._name, header, payload, timeout, client)


class CountingDevices(qwen.KeptDevices):
    """Keeps how many clips its batches had."""

    def __init__(self, settings: QwenSettings, module: str) -> None:
        super().__init__(settings, module)
        self.batches: list[int] = []

    async def run(self, batch: Sequence[Item]) -> Sequence[TimestampSlots]:
        self.batches.append(len(batch))
        return await super().run(batch)


@asynccontextmanager
async def joined(module: Halves, far: Half) -> AsyncIterator[tuple[Engine, Direct]]:
    await far.start()
    lanes = Direct(far)
    near = module.near(SETTINGS, lanes, None)
    await near.start()
    yield near, lanes
    await near.close()
    await far.close()


async def test_pocketsphinx_with_one_of_its_other_languages() -> None:
    async with joined(pocketsphinx, pocketsphinx.far(FAR)) as (engine, lanes):
        tokens = await engine.tokenise("an der Elbe", "de")
        caller = Caller("me", asyncio.get_running_loop().time() + 9)
        assert len((await engine.align(CLIP, tokens, "de", caller)).spans) == 3
        assert lanes.callers[-1][0] == "me"
        assert lanes.callers[-1][1] <= 9


async def test_qwen_batches_what_several_ask_for() -> None:
    devices = CountingDevices(SETTINGS.qwen, DEVICE)
    far = qwen.FarDevices(FAR, devices)
    here = QwenEngine(SETTINGS.engine, SETTINGS.qwen, devices=Devices(SETTINGS.qwen, DEVICE))
    await here.start()
    async with joined(qwen, far) as (engine, lanes):
        tokens = await engine.tokenise("and then it was", "en")
        wanted = (await here.align(CLIP, tokens, "en", Caller())).spans
        answers = await asyncio.gather(*(engine.align(CLIP, tokens, "en", Caller(f"c{number}")) for number in range(12)))
        assert all(answer.spans == wanted for answer in answers)
        assert {client for client, _ in lanes.callers} == {"", *(f"c{number}" for number in range(12))}
        assert max(devices.batches) > 1
    await here.close()
