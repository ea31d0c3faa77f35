"""Devices in processes of their own: they die and are replaced, and no call is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aligner_svc.config.engine import EngineSettings, QwenSettings
from aligner_svc.domain import Caller, Clip
from aligner_svc.engines.base import EngineResult, EngineStartError
from aligner_svc.engines.qwen.devices import pool
from aligner_svc.engines.qwen.devices.pool import Devices, device_names
from aligner_svc.engines.qwen.engine import QwenEngine
from tests.kit import qwen_material
from tests.kit.waiting import eventually

PAIRS = qwen_material.pairs(0, [8_000, 16_000, 32_000, 48_000])


async def ask(engine: QwenEngine, place: int) -> EngineResult:
    pair = PAIRS[place % len(PAIRS)]
    tokens = await engine.tokenise(pair.text, pair.language)
    return await engine.align(Clip(pair.samples), tokens, pair.language, Caller(f"client {place % 3}"))


async def test_calls_survive_the_end_of_a_cuda_context(tiny_checkpoint: Path) -> None:
    """The process ends itself; six calls are always in flight."""
    qwen = QwenSettings(model=str(tiny_checkpoint), device="cpu", dtype="fp32", batch_items=2)
    devices = Devices(qwen, "tests.kit.qwen_victim")
    engine = QwenEngine(EngineSettings(), qwen, devices=devices)
    (children,) = devices.pools
    stop = asyncio.Event()

    async def caller(place: int) -> int:
        done = 0
        while not stop.is_set():
            assert (await ask(engine, place)).spans == answers[place % len(PAIRS)]
            done += 1
        return done

    try:
        await engine.start()
        answers = [(await ask(engine, place)).spans for place in range(len(PAIRS))]
        callers = [asyncio.create_task(caller(place)) for place in range(6)]
        os.kill(children.pids[0], signal.SIGUSR1)
        await eventually(lambda: children.restarts == 1 and children.trouble is None, timeout=90.0)
        stop.set()
        assert all(await asyncio.gather(*callers))
        state = children.places()["cpu"]
        assert (state.up, state.wanted, state.restarts) == (1, 1, 1)
        assert state.busy > 0
    finally:
        await engine.close()


def test_the_server_imports_no_torch() -> None:
    """Which takes 300 MB and seconds, and would share the interpreter lock with the event loop."""
    code = (
        "import sys, aligner_svc.engines.qwen.engine; raise SystemExit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


async def test_a_start_that_fails_says_why_in_one_line(tmp_path: Path) -> None:
    devices = Devices(QwenSettings(model=str(tmp_path), device="cpu"))
    with pytest.raises(EngineStartError, match=r"^.*: config\.json is missing$"):
        await devices.start()
    await devices.close()


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
