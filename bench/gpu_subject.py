"""The model that `bench.gpu` measures, and its timer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch

from aligner_svc.engines.qwen.attention import Attention
from aligner_svc.engines.qwen.checkpoint import Checkpoint
from aligner_svc.engines.qwen.devices.preparation import Map, Preparation, Prepared
from aligner_svc.engines.qwen.devices.wire import Item
from aligner_svc.engines.qwen.forward import PackedAligner
from bench.synthetic import Speech


@dataclass(frozen=True, slots=True)
class Plan:
    """Amount of work: `seconds` of a clip, `max_seconds` for one figure, `total` seconds for the whole run."""

    seconds: tuple[float, ...] = (10.0, 30.0, 60.0, 180.0)
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    runs: int = 5
    latencies: int = 50
    max_seconds: float = 8.0
    total: float = 460.0
    compared: int = 4


QUICK = Plan(seconds=(10.0, 30.0), batches=(1, 4), runs=3, latencies=20, max_seconds=2.0, total=110.0, compared=2)


@dataclass(frozen=True, slots=True)
class Subject:
    """The model under measurement, with its inputs and limits."""

    folder: Path
    device: torch.device
    loaded: Checkpoint
    preparation: Preparation
    attention: Attention
    aligner: PackedAligner
    preparers: int
    plan: Plan
    deadline: float
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(f"- {text}", flush=True)

    def left(self) -> float:
        return self.deadline - time.perf_counter()

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def prepare(self, speech: Speech) -> Prepared:
        return self.preparation(speech.samples, [token.spoken[0] for token in speech.tokens])

    def batch(self, clips: Sequence[Speech], run: Map = map) -> list[Prepared]:
        """As the service prepares them: side by side in one buffer."""
        prompt = self.preparation.prompt
        items = [Item(clip.samples, prompt(len(clip.samples), [token.spoken[0] for token in clip.tokens])) for clip in clips]
        return self.preparation.batch(items, run)

    def timed(self, work: Callable[[], object]) -> float | str:
        """Median seconds of several runs after a warm-up; or a word that says why there are none."""
        seconds: list[float] = []
        try:
            work()
            self.wait()
            began = time.perf_counter()
            while len(seconds) < self.plan.runs and (not seconds or time.perf_counter() - began < self.plan.max_seconds):
                start = time.perf_counter()
                work()
                self.wait()
                seconds.append(time.perf_counter() - start)
        except torch.OutOfMemoryError:
            pass  # its memory is freed below, outside of the handler
        except RuntimeError as error:
            return str(error).strip().splitlines()[0][:60]
        if seconds:
            return median(seconds)
        torch.cuda.empty_cache()
        return "no memory"
