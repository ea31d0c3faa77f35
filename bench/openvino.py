"""Would OpenVINO be faster on this CPU? The decoder with the same weights on both, in turns.

    python3 -m venv OWN && OWN/bin/pip install openvino          its own, beside this project's packages
    PYTHONPATH=.:client:.venv/lib/python3.11/site-packages OWN/bin/python -m bench.openvino

Each runs in a process of its own, which sleeps while the other computes: the idle threads of one would slow the other down.
Every row goes through every layer on both sides; in float32, and on a CPU with bf16 `--dtype bf16` in that.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from aligner_svc.engines.qwen import checkpoint
from aligner_svc.engines.qwen.devices.preparation import Preparation
from aligner_svc.engines.qwen.forward import PackedAligner
from aligner_svc.engines.qwen.memory import keep_few_kernels
from aligner_svc.heap import keep_memory
from bench.processes import others_cpu_seconds
from bench.synthetic import speech
from tests.kit.checkpoint import TRUE_SIZE, build

_DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SIDES: Final = ("ours", "openvino")


class Layer(nn.Module):
    """A layer of the decoder as its formulas are, for a converter; one clip."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.attention, self.mlp = layer.self_attn, layer.mlp
        self.before, self.after = layer.input_layernorm, layer.post_attention_layernorm
        self.heads = layer.self_attn.config.num_attention_heads
        self.groups = layer.self_attn.config.num_key_value_heads

    def forward(self, rows: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        attention, normal = self.attention, self.before(rows)
        query = self._turned(attention.q_norm(attention.q_proj(normal).view(-1, self.heads, attention.head_dim)), cos, sin)
        key = self._turned(attention.k_norm(attention.k_proj(normal).view(-1, self.groups, attention.head_dim)), cos, sin)
        value = attention.v_proj(normal).view(-1, self.groups, attention.head_dim)
        key, value = (part.repeat_interleave(self.heads // self.groups, 1) for part in (key, value))
        query, key, value = (part.transpose(0, 1)[None] for part in (query, key, value))
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)[0].transpose(0, 1)
        rows = rows + attention.o_proj(mixed.reshape(-1, self.heads * attention.head_dim))
        normal = self.after(rows)
        return rows + self.mlp.down_proj(functional.silu(self.mlp.gate_proj(normal)) * self.mlp.up_proj(normal))

    @staticmethod
    def _turned(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        first, second = heads.chunk(2, -1)
        return heads * cos + torch.cat((-second, first), -1) * sin


class Decoder(nn.Module):
    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(layer) for layer in decoder.layers)
        self.norm = decoder.norm

    def forward(self, rows: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            rows = layer(rows, cos, sin)
        return self.norm(rows)


class Side:
    """One of the two, with the inputs of both."""

    def __init__(self, name: str, folder: str, dtype: torch.dtype) -> None:
        keep_memory()
        keep_few_kernels()
        loaded = checkpoint.load(folder, torch.device("cpu"), dtype)
        self._dtype = dtype
        self._prepare, self._rotary = Preparation(loaded, dtype), loaded.thinker.model.rotary_emb
        self._net = self._openvino(Decoder(loaded.thinker.model).eval(), dtype) if name == "openvino" else None
        self._ours = PackedAligner(loaded) if name == "ours" else None

    @staticmethod
    def _openvino(decoder: Decoder, dtype: torch.dtype) -> Any:
        import openvino  # noqa: PLC0415 - in the other environment alone

        example = tuple(torch.randn(64, *shape, dtype=dtype) for shape in ((1024,), (1, 128), (1, 128)))
        with torch.no_grad():
            model = openvino.convert_model(decoder, example_input=example)
        hint = "f32" if dtype == torch.float32 else "bf16"
        how = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        print("openvino", openvino.__version__, file=sys.stderr)
        return openvino.Core().compile_model(model, "CPU", how)

    def work(self, seconds: float) -> Callable[[], torch.Tensor]:
        """A pass over one clip."""
        clip = speech(seconds, 0)
        item = self._prepare(clip.samples, [token.spoken[0] for token in clip.tokens])
        rows = torch.randn(item.rows, 1024, generator=torch.Generator().manual_seed(0)).to(self._dtype)
        cos, sin = (part.transpose(0, 1).contiguous() for part in self._rotary(rows, torch.arange(item.rows).expand(3, 1, -1)))
        if self._ours is None:
            return lambda: torch.from_numpy(self._net((rows, cos, sin))[0])
        ours = self._ours
        given = ours.feed([item])._replace(slots=torch.arange(item.rows))
        return lambda: ours._decode(rows.clone(), given)  # noqa: SLF001


@torch.inference_mode()
def serve(name: str, folder: str, dtype: torch.dtype) -> None:
    """Answer each line, seconds of a clip, with the seconds that its pass took."""
    side, works = Side(name, folder, dtype), {}
    print("ready", flush=True)
    for line in sys.stdin:
        seconds = float(line)
        if seconds not in works:
            works[seconds] = side.work(seconds)
            np.save(f"{folder}/{name}-{seconds}.npy", works[seconds]().float().numpy())
        work = works[seconds]
        began, used = time.perf_counter(), time.process_time()
        work()
        print(time.perf_counter() - began, time.process_time() - used, flush=True)


def compare(folder: Path, dtype: str, threads: int, rounds: int) -> None:
    options = ("--dtype", dtype, "--threads", str(threads), "--folder", str(folder), "--side")
    command = [sys.executable, "-W", "ignore", "-m", "bench.openvino", *options]
    sides = [subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in _SIDES]
    for side in sides:
        assert side.stdout is not None
        while side.stdout.readline().strip() != "ready":  # the converter prints too
            assert side.poll() is None

    def ask(side: subprocess.Popen[str], seconds: float) -> tuple[float, float]:
        assert side.stdin is not None
        assert side.stdout is not None
        print(seconds, file=side.stdin, flush=True)
        wall, used = map(float, side.stdout.readline().split())
        return wall, used

    for seconds in (10.0, 30.0):
        ours, theirs = zip(*[[ask(side, seconds) for side in sides] for _ in range(rounds + 1)][1:], strict=True)
        one, other = (np.load(folder / f"{name}-{seconds}.npy") for name in _SIDES)
        print(
            f"{seconds:g} s, {len(one)} rows: states differ by {np.abs(one - other).max() / np.abs(one).max():.1e} of the largest"
        )
        for what, column in (("time", 0), ("processor time", 1)):
            ratios = sorted(a[column] / b[column] for a, b in zip(ours, theirs, strict=True))
            medians = [statistics.median(run[column] for run in runs) for runs in (ours, theirs)]
            print(
                f"  {what}: ours {medians[0] * 1000:.0f} ms, OpenVINO {medians[1] * 1000:.0f} ms, OpenVINO "
                f"{statistics.median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f})",
                flush=True,
            )
    for side in sides:
        assert side.stdin is not None
        side.stdin.close()
        side.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dtype", choices=_DTYPES, default="fp32")
    parser.add_argument("--layers", type=int, default=4, help="of the decoder; the published one has 28")
    parser.add_argument("--model", type=Path, help="a checkpoint; default: random weights")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="1: processor time without any waiting")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=_SIDES, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.side:
        serve(chosen.side, str(chosen.folder), _DTYPES[chosen.dtype])
        return
    size = copy.deepcopy(TRUE_SIZE)
    size["audio_config"]["encoder_layers"] = 1
    size["text_config"]["num_hidden_layers"] = chosen.layers
    kernels = torch.backends.cpu.get_cpu_capability()
    print(f"torch {torch.__version__}, {chosen.threads} threads of {os.cpu_count()} cores, {platform.machine()}, {kernels}")
    began, disturbed = time.perf_counter(), others_cpu_seconds()
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.model or build(Path(scratch), size, dtype=_DTYPES[chosen.dtype])
        compare(folder, chosen.dtype, chosen.threads, chosen.rounds)
    share = (others_cpu_seconds() - disturbed) / (time.perf_counter() - began)
    print(f"Other programs used {share:.2f} of a core meanwhile.")


if __name__ == "__main__":
    main()
