"""What callers notice when the process of a Qwen device dies: calls lost, seconds until it is SERVING and until the next answer.

    .venv/bin/python -m bench.deaths            tiny layers on a CPU, twelve callers; a minute or two
    .venv/bin/python -m bench.deaths --model FOLDER --device cuda

Each death follows as soon as the process before has been replaced and every caller has an answer, so some come before there is a
spare process again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Final

from aligner_svc.config.engine import EngineSettings, QwenSettings
from aligner_svc.domain import Caller, Clip
from aligner_svc.engines.qwen.engine import QwenEngine
from aligner_svc.errors import AlignerError
from bench.synthetic import speech
from tests.kit.checkpoint import build
from tests.kit.waiting import eventually

_CALLERS: Final = 12
_SECONDS: Final = 5.0
_DEATHS: Final = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP, signal.SIGKILL, signal.SIGABRT)
_PATIENCE: Final = 120.0


async def measure(settings: QwenSettings, rest: float) -> None:
    """`rest`: seconds between a recovery and the next death."""
    engine = QwenEngine(EngineSettings(), settings)
    (children,) = engine.report.pools
    await engine.start()
    clip = speech(_SECONDS, 0)
    tokens = await engine.tokenise(clip.text, "en")
    answered, lost, stop = [0] * _CALLERS, list[str](), asyncio.Event()

    async def caller(number: int) -> None:
        while not stop.is_set():
            try:
                await engine.align(Clip(clip.samples), tokens, "en", Caller(f"client {number}"))
            except AlignerError as error:
                lost.append(error.reason)
            answered[number] += 1

    callers = [asyncio.create_task(caller(number)) for number in range(_CALLERS)]
    await eventually(lambda: min(answered) >= 1, timeout=_PATIENCE)
    for count, number in enumerate(_DEATHS, 1):
        await asyncio.sleep(rest)
        began, before = time.monotonic(), sum(answered)
        os.kill(children.pids[0], number)
        await eventually(lambda count=count: children.restarts == count, timeout=_PATIENCE)  # type: ignore[misc]
        noticed = time.monotonic() - began
        at_hand = sum(answered)
        await eventually(lambda: len(children.pids) == children.size, timeout=_PATIENCE)
        serving = time.monotonic() - began
        await eventually(lambda at_hand=at_hand: sum(answered) > at_hand, timeout=_PATIENCE)  # type: ignore[misc]
        first = time.monotonic() - began
        each = answered.copy()
        await eventually(lambda each=each: all(map(int.__gt__, answered, each)), timeout=_PATIENCE)  # type: ignore[misc]
        print(
            f"{number.name:8} noticed after {noticed:.1f} s, SERVING after {serving:.1f} s (goal 5), "
            f"first answer after {first:.1f} s; {sum(answered) - before} calls meanwhile, {len(lost)} lost",
            flush=True,
        )
    stop.set()
    await asyncio.gather(*callers)
    await engine.close()
    print(f"{sum(answered)} calls, {len(lost)} lost {sorted(set(lost))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: tiny layers with random weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rest", type=float, default=0.0, help="seconds between a recovery and the next death")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or str(build(Path(folder)))
        asyncio.run(measure(QwenSettings(model=model, device=options.device), options.rest))


if __name__ == "__main__":
    main()
