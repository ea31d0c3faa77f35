"""Devices in processes of their own: they die and are replaced, and no call is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest

from aligner_svc.config.engine import EngineSettings, QwenSettings
from aligner_svc.domain import Caller, Clip
from aligner_svc.engines.base import EngineResult, EngineStartError
from aligner_svc.engines.qwen.devices import pool
from aligner_svc.engines.qwen.devices.pool import Devices, device_names
from aligner_svc.engines.qwen.engine import QwenEngine
from aligner_svc.workers.pool import WorkerPool
from tests.kit.waiting import eventually

CLIPS = [Clip(np.zeros(samples, np.int16)) for samples in (16_001, 24_002, 32_003)]
DEATHS = (signal.SIGKILL, signal.SIGUSR1, signal.SIGABRT, signal.SIGSTOP, signal.SIGUSR1)


@asynccontextmanager
async def running(device: str) -> AsyncIterator[tuple[QwenEngine, WorkerPool]]:
    """An engine with devices that have no model."""
    qwen = QwenSettings(device=device, batch_items=2)
    engine = QwenEngine(EngineSettings(), qwen, devices=Devices(qwen, "tests.kit.qwen_device"))
    (children,) = engine.report.pools
    try:
        await engine.start()
        yield engine, children
    finally:
        await engine.close()


async def ask(engine: QwenEngine, place: int) -> EngineResult:
    tokens = await engine.tokenise("and then it was", "en")
    return await engine.align(CLIPS[place % len(CLIPS)], tokens, "en", Caller(f"client {place % 3}"))


@pytest.mark.parametrize(("device", "deaths"), [("cpu", DEATHS), ("cpu,cpu", DEATHS[:2])])
async def test_calls_survive_the_death_of_their_device(
    device: str, deaths: Sequence[signal.Signals], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is killed, its context is destroyed, it has a fault, it is stopped: six calls are always in flight.

    They are in batches of at most two, of which each process has two, as on a GPU.
    """
    monkeypatch.setitem(pool._AHEAD, "cpu", 1)
    async with running(device) as (engine, children):
        assert engine.batcher.ahead == children.size
        answers = [(await ask(engine, place)).spans for place in range(len(CLIPS))]
        assert len({span.start for spans in answers for span in spans[:1]}) == len(CLIPS)
        stop = asyncio.Event()
        answered = [0] * 6

        async def caller(place: int) -> None:
            while not stop.is_set():
                assert (await ask(engine, place)).spans == answers[place % len(CLIPS)]
                answered[place] += 1

        callers = [asyncio.create_task(caller(place)) for place in range(len(answered))]
        for count, number in enumerate(deaths, 1):
            os.kill(children.pids[0], number)
            await eventually(lambda count=count: children.restarts == count and len(children.pids) == children.size)
            before = answered.copy()
            await eventually(lambda before=before: all(now > then for now, then in zip(answered, before, strict=True)))
        stop.set()
        await asyncio.gather(*callers)
        state = children.places()["cpu"]
        assert (state.up, state.wanted, state.restarts) == (children.size, children.size, len(deaths))
        assert state.busy > 0


async def test_a_start_that_is_refused_says_why() -> None:
    devices = Devices(QwenSettings(device="cpu,cpu", dtype="bf16"), "tests.kit.qwen_device")
    with pytest.raises(EngineStartError, match=r"^cpu of 2: no such precision$"):
        await devices.start()
    await devices.close()


def test_the_server_imports_no_torch() -> None:
    """Which takes 300 MB and seconds, and would share the interpreter lock with the event loop."""
    code = (
        "import sys, aligner_svc.engines.qwen.engine; raise SystemExit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_devices_of_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_names("auto") == ["auto"]
    assert device_names("cuda:0,cuda:2") == ["cuda:0", "cuda:2"]
    monkeypatch.setattr(pool, "_gpus", lambda: 2)
    assert device_names("cuda:all") == ["cuda:0", "cuda:1"]
    monkeypatch.setattr(pool, "_gpus", lambda: 0)
    assert device_names("cuda:all") == ["cuda"]


@pytest.mark.parametrize("device", ["cpu,cuda", "cuda:all,cuda:0", "auto,cpu", "cuda:", "", "tpu"])
def test_what_is_no_list_of_devices(device: str) -> None:
    with pytest.raises(ValueError, match="device"):
        QwenSettings(device=device)


def test_children_get_what_their_libraries_read_and_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "HF_HOME", "https_proxy", "ALIGNER_AUTH__BADGE", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "value")
    assert {"CUDA_VISIBLE_DEVICES", "HF_HOME", "https_proxy"} <= pool._environment().keys()
    assert not {"ALIGNER_AUTH__BADGE", "AWS_SECRET_ACCESS_KEY"} & pool._environment().keys()
