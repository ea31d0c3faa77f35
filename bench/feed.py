"""How long a device waits between two batches, with and without the next one in its process.

    .venv/bin/python -m bench.feed                on a CPU, tiny layers: what a batch costs beside its pass weighs most
    .venv/bin/python -m bench.feed --model FOLDER --device cuda

Callers are always waiting. The process of the device notes when each pass begins and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final

from tokenizers import Tokenizer

from aligner_svc.config.engine import EngineSettings, QwenSettings
from aligner_svc.domain import Caller, Clip
from aligner_svc.engines.qwen.devices.pool import Devices
from aligner_svc.engines.qwen.devices.wire import DeviceLoaded
from aligner_svc.engines.qwen.engine import QwenEngine
from bench.synthetic import speech
from tests.kit.checkpoint import build

_CALLERS: Final = 32
_NOTES: Final = "passes.txt"
_SKIPPED: Final = 4
"""Passes at first: not all callers are there yet."""


class _Devices(Devices):
    """`ahead` as it is told."""

    def __init__(self, settings: QwenSettings, ahead: int) -> None:
        super().__init__(settings, "bench.feed")
        self._told = ahead

    async def start(self) -> tuple[DeviceLoaded, Tokenizer]:
        started = await super().start()
        self.ahead = self._told
        return started


async def measure(settings: QwenSettings, ahead: int, seconds: float, length: float) -> tuple[float, float, float]:
    """Share of the time between passes, median gap in seconds, clips a second."""
    notes = Path(settings.model) / _NOTES
    notes.write_text("")
    engine = QwenEngine(EngineSettings(), settings, devices=_Devices(settings, ahead))
    await engine.start()
    clips = [speech(length, seed) for seed in range(4)]
    tokens = [await engine.tokenise(clip.text, "en") for clip in clips]
    answered = 0
    end = time.monotonic() + seconds

    async def caller(number: int) -> None:
        nonlocal answered
        while time.monotonic() < end:
            await engine.align(Clip(clips[number % 4].samples), tokens[number % 4], "en", Caller(f"client {number}"))
            answered += 1

    await asyncio.gather(*map(caller, range(_CALLERS)))
    await engine.close()
    passes = [tuple(map(float, line.split())) for line in notes.read_text().splitlines()][_SKIPPED:]
    gaps = [after[0] - before[1] for before, after in pairwise(passes)]
    return sum(gaps) / (passes[-1][1] - passes[0][0]), median(gaps), answered / seconds


def device(arguments: Sequence[str]) -> None:
    """The process of the device."""
    from aligner_svc.engines.qwen.devices import model, worker  # noqa: PLC0415 - after `attach`, in worker.main

    compute = model.Model.run
    notes = Path(arguments[0]) / _NOTES

    def run(self: model.Model, ready: model.Ready) -> list[model.TimestampSlots]:
        began = time.monotonic()
        try:
            return compute(self, ready)
        finally:
            with notes.open("a") as file:
                print(began, time.monotonic(), file=file)

    model.Model.run = run  # type: ignore[method-assign]
    worker.main(*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, help="a checkpoint in a folder that can be written; default: tiny layers")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of four measurements")
    parser.add_argument("--length", type=float, default=10.0, help="of a clip")
    parser.add_argument("--items", type=int, default=8, help="clips of a batch")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.model or build(Path(scratch))
        settings = QwenSettings(
            model=str(folder), device=chosen.device, dtype="fp32", batch_items=chosen.items, batch_tokens=100_000
        )
        for ahead in (0, 1, 0, 1):
            idle, gap, rate = asyncio.run(measure(settings, ahead, chosen.seconds, chosen.length))
            print(f"{ahead} ahead: idle {idle:.1%}, {gap * 1000:.1f} ms between passes, {rate:.0f} clips a second", flush=True)


if __name__ == "__main__":
    if "WORKER_SOCKET_FD" in __import__("os").environ:
        device(sys.argv[1:])
    else:
        main()
