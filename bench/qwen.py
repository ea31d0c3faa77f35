"""How well the Qwen engine uses this machine's CPU, compared to qwen-asr on the same weights, in one run.

    make bench-qwen                          true size, random weights, bf16; some 8 minutes on 2 cores
    make bench-qwen ARGS="--quick"           fewer repetitions
    make bench-qwen ARGS="--model FOLDER"    a checkpoint of your own

Random weights cost what trained ones do. Every ratio is of two things measured in turns in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.config.engine import EngineSettings, QwenSettings
from aligner_svc.domain import SAMPLE_RATE, Caller, Clip
from aligner_svc.engines.qwen import checkpoint
from aligner_svc.engines.qwen.devices.preparation import Preparation, Prepared
from aligner_svc.engines.qwen.engine import QwenEngine
from aligner_svc.engines.qwen.forward import PackedAligner
from aligner_svc.engines.qwen.layers import FusedLinear, Linear, fused_work
from aligner_svc.engines.qwen.memory import keep_few_kernels
from aligner_svc.engines.qwen.prompt import CHUNK, chunks_of
from aligner_svc.heap import keep_memory
from aligner_svc.text.model_words import load_nagisa
from bench import flops
from bench.processes import others_cpu_seconds
from bench.service import service
from bench.synthetic import LANGUAGE, Speech, speech
from tests.kit.checkpoint import TRUE_SIZE, build
from tests.kit.peak_memory import peak_memory
from tests.kit.servers import calling

_MIXED = (3, 5, 8, 12, 15, 20, 25, 30)
_IN_FLIGHT = 16
_CLIP_SECONDS = 10.0
_LENGTHS = 60
_PARTS = ("memory", "model", "service")


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turns(repetitions: int, *works: Callable[[], object]) -> list[float]:
    """Median seconds of each, the first round not counted."""
    rounds = [[timed(work) for work in works] for _ in range(repetitions + 1)][1:]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


class Product:
    """A product of bf16 matrices, the fastest of several sizes: the machine's peak rate, measured whenever needed.

    Weights as PyTorch has them, and as oneDNN lays them out for its kernels, where it can.
    """

    def __init__(self) -> None:
        sizes = ((4096, 4096, 4096), (2048, 2048, 2048), (1024, 1024, 3072), (512, 3072, 1024), (1024, 1024, 1024))
        kinds = (Linear, FusedLinear) if fused_work(torch.device("cpu"), torch.bfloat16) else (Linear,)
        drawn = (self._draw(kind, *size) for kind in kinds for size in sizes)
        self._rows, self._layer = max(drawn, key=lambda pair: self._rate(*pair))

    def rate(self) -> float:
        """GFLOP/s, the best of several runs."""
        return self._rate(self._rows, self._layer)

    def sustained(self, seconds: float) -> float:
        """GFLOP/s over that many seconds: a shared machine does not sustain the rate of a burst."""
        began, count = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < seconds:
            self._layer(self._rows)
            count += 1
        return count * self._operations(self._rows, self._layer) / passed / 1e9

    @staticmethod
    def _draw(kind: type[Linear], rows: int, inner: int, columns: int) -> tuple[torch.Tensor, Linear]:
        layer = torch.nn.Linear(inner, columns, bias=False, dtype=torch.bfloat16).requires_grad_(False)
        return torch.randn(rows, inner).bfloat16(), kind(layer)

    @staticmethod
    def _rate(rows: torch.Tensor, layer: Linear) -> float:
        seconds = min(timed(lambda: layer(rows)) for _ in range(6))
        return Product._operations(rows, layer) / seconds / 1e9

    @staticmethod
    def _operations(rows: torch.Tensor, layer: Linear) -> int:
        return 2 * rows.numel() * layer(rows).shape[1]


class Bench:
    def __init__(self, folder: Path, repetitions: int) -> None:
        self.folder = folder
        self.repetitions = repetitions
        load_nagisa()
        from qwen_asr import Qwen3ForcedAligner  # noqa: PLC0415 - only after nagisa, see load_nagisa

        self.theirs = Qwen3ForcedAligner.from_pretrained(str(folder), dtype=torch.bfloat16)
        loaded = checkpoint.load(str(folder), torch.device("cpu"), torch.bfloat16)
        self.config = loaded.thinker.config
        self.preparation = Preparation(loaded, torch.bfloat16)
        self.ours = PackedAligner(loaded)

    def prepare(self, clips: Sequence[Speech]) -> list[Prepared]:
        return [self.preparation(clip.samples, [token.spoken[0] for token in clip.tokens]) for clip in clips]

    def align_theirs(self, clips: Sequence[Speech]) -> None:
        audio = [(clip.samples.astype(np.float32) / 32768, SAMPLE_RATE) for clip in clips]
        self.theirs.align(audio, [clip.text for clip in clips], ["English"] * len(clips))

    def model(self, product: Product) -> None:
        print("\n| clips | this engine | real-time factor | GFLOP/s | of the peak | of the sustained | qwen-asr | ratio | goal |")
        print("|---|---|---|---|---|---|---|---|---|")
        for name, lengths, goal in (
            ("one of 10 s", (10.0,), ""), ("one of 30 s", (30.0,), "1.0"), ("8 of 3 to 30 s", _MIXED, "1.2"),
            ("one of 180 s", (180.0,), "1.2"),
        ):  # fmt: skip
            clips = [speech(seconds, seed) for seed, seconds in enumerate(lengths)]
            ready = self.prepare(clips)
            count = flops.count(self.config, ready).total
            repetitions = self.repetitions if sum(lengths) < 60 else max(1, self.repetitions // 3)
            peaks: list[float] = []  # measured in turn with the rest, since the speed of a shared machine changes
            sustained: list[float] = []
            # The pass alone follows one of the engine's own, as in a service, and not one of qwen-asr's.
            whole, forward, _, theirs = in_turns(
                repetitions,
                lambda: self.ours(self.prepare(clips)),  # noqa: B023
                lambda: self.ours(ready),  # noqa: B023
                lambda: (peaks.append(product.rate()), sustained.append(product.sustained(1.0))),  # noqa: B023
                lambda: self.align_theirs(clips),  # noqa: B023
            )
            rate, peak, kept = count / forward / 1e9, statistics.median(peaks), statistics.median(sustained)
            print(
                f"| {name} | {whole:.2f} s | {whole / sum(lengths):.3f} | {rate:.0f} | "
                f"{rate / peak:.2f} of {peak:.0f} (goal 0.80) | "
                f"{rate / kept:.2f} of {kept:.0f} | {theirs:.2f} s | {theirs / whole:.2f} | {goal} |",
                flush=True,
            )

    def padding(self) -> None:
        ready = self.prepare([speech(seconds, seed) for seed, seconds in enumerate((*_MIXED, 4.4, 7.3, 9.9, 13.2))])
        frames = [item.frames for item in ready]
        chunks = sum(map(chunks_of, frames))
        print(
            f"\nPadding: none of the {sum(item.rows for item in ready)} decoder rows and none of the attention windows; "
            f"{1 - sum(frames) / (chunks * CHUNK):.1%} of the convolutions' frames fill up a clip's last second."
        )


async def service_over_engine(folder: Path, repetitions: int) -> None:
    clips = [speech(_CLIP_SECONDS, seed) for seed in range(_IN_FLIGHT)]
    audio = sum(len(clip.samples) for clip in clips) / SAMPLE_RATE
    settings = {"engine__name": "qwen", "qwen__model": folder, "qwen__device": "cpu", "qwen__dtype": "bf16"}
    engine = QwenEngine(EngineSettings(), QwenSettings(model=str(folder), device="cpu", dtype="bf16"))
    await engine.start()
    waits: list[float] = []
    with service(**settings) as running:
        async with calling(running.target) as stub:

            async def through_the_service() -> None:
                requests = (stub.Align(request(clip)) for clip in clips)
                answers = await asyncio.gather(*requests)
                waits.extend(answer.summary.timing.queue_ms / 1000 for answer in answers)

            async def on_the_engine() -> None:
                await asyncio.gather(*(engine.align(Clip(clip.samples), clip.tokens, "en", Caller()) for clip in clips))

            rounds: list[tuple[float, float]] = []
            for _ in range(repetitions + 1):
                began = time.perf_counter()
                await on_the_engine()
                middle = time.perf_counter()
                await through_the_service()
                rounds.append((middle - began, time.perf_counter() - middle))
    await engine.close()
    alone, served = (statistics.median(column) for column in zip(*rounds[1:], strict=True))
    waits.sort()
    print(
        f"\n{_IN_FLIGHT} calls of {_CLIP_SECONDS:.0f} s in flight: the engine alone {audio / alone:.1f} times real time, "
        f"through the service {audio / served:.1f}; ratio {alone / served:.2f} (goal 0.95). "
        f"Wait in the queue: p50 {waits[len(waits) // 2]:.2f} s, p95 {waits[int(len(waits) * 0.95)]:.2f} s "
        f"(all {_IN_FLIGHT} come at once; the whole takes {served:.2f} s)."
    )


def request(clip: Speech) -> pb.AlignRequest:
    config = pb.AlignConfig(transcript=clip.text, language="en", encoding=pb.AUDIO_ENCODING_LINEAR16, sample_rate_hz=SAMPLE_RATE)
    return pb.AlignRequest(config=config, audio=clip.samples.tobytes())


async def clips_of_many_lengths(folder: Path, weights: int) -> None:
    """A long clip in the fresh process of a device, and again after clips of all lengths. `weights`: bytes."""
    long = speech(300.0)  # drawn first: that takes more memory than aligning it
    engine = QwenEngine(EngineSettings(), QwenSettings(model=str(folder), device="cpu", dtype="bf16"))
    await engine.start()
    served = 0
    mixed = np.random.default_rng(0).uniform(1, 30, _LENGTHS)
    for clips in ([long], (speech(float(seconds), seed) for seed, seconds in enumerate(mixed)), [long]):
        for clip in clips:
            await engine.align(Clip(clip.samples), clip.tokens, LANGUAGE, Caller())
            served += 1
        (children,) = engine.report.pools
        peak = sum(map(peak_memory, children.pids))
        share = f"{peak / weights:.2f} of the weights' {weights / 1e6:.0f} MB (goal 1.30)"
        last = len(clip.samples) / SAMPLE_RATE
        own = peak_memory(os.getpid()) / 1e6
        print(f"Memory after {served} clips, the last of {last:.0f} s: {peak / 1e6:.0f} MB peak, {share}.", flush=True)
        print(f"Beside it, the server's own process: {own:.0f} MB.", flush=True)
    await engine.close()


def model(folder: Path, repetitions: int) -> None:
    keep_memory()  # as the engine does; it applies to qwen-asr too
    keep_few_kernels()
    print(f"\n{torch.get_num_threads()} threads, torch {torch.__version__}")
    bench = Bench(folder, repetitions)
    bench.model(Product())
    bench.padding()


def part(name: str, folder: Path, repetitions: int) -> None:
    match name:
        case "memory":
            weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
            asyncio.run(clips_of_many_lengths(folder, weights))
        case "model":
            model(folder, repetitions)
        case "service":
            asyncio.run(service_over_engine(folder, max(1, repetitions // 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--model", type=Path, help="a checkpoint; default: random weights of the true size, in a temporary folder"
    )
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--only", choices=_PARTS, help="one part")
    chosen = parser.parse_args()
    began, disturbed = time.perf_counter(), others_cpu_seconds()
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.model or build(Path(scratch), TRUE_SIZE, dtype=torch.bfloat16)
        if chosen.only and chosen.model:
            part(chosen.only, folder, 1 if chosen.quick else 5)
            return
        # Each in a process of its own, so that threads and memory of one do not affect the figures of the next.
        for name in [chosen.only] if chosen.only else _PARTS:
            command = [sys.executable, "-W", "ignore", "-m", "bench.qwen", "--only", name, "--model", str(folder)]
            subprocess.run([*command, *["--quick"] * chosen.quick], check=True)
    share = (others_cpu_seconds() - disturbed) / (time.perf_counter() - began)
    print(f"\nOther programs used {share:.2f} of a core meanwhile.")


if __name__ == "__main__":
    main()
