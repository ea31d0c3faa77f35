"""Weights are in memory once, and the memory of a long clip is returned."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from aligner_svc.config.engine import EngineSettings, QwenSettings
from aligner_svc.domain import SAMPLE_RATE, Caller, Clip
from aligner_svc.engines.qwen import checkpoint, device, engine, memory
from aligner_svc.engines.qwen.device import ModelThread
from aligner_svc.engines.qwen.engine import QwenEngine
from aligner_svc.engines.qwen.forward import TimestampSlots
from aligner_svc.engines.qwen.memory import drop_pages
from aligner_svc.engines.qwen.preparation import Preparation, Prepared

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def resident_file_kb() -> int:
    """Pages of tmpfs included."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssFile", "RssShmem")))


def test_dropped_pages_of_a_mapped_file_leave_memory(tmp_path: Path) -> None:
    """And the tensors around them keep their values."""
    path = tmp_path / "weights.safetensors"
    drawn = {name: torch.randn(4 << 20, generator=torch.Generator().manual_seed(seed)) for seed, name in enumerate("abc")}
    save_file(drawn, path)
    with safe_open(path, framework="pt") as file:
        a, b, c = (file.get_tensor(name) for name in "abc")
    assert float(a.sum() + b.sum() + c.sum()) != 0
    before = resident_file_kb()
    drop_pages(b)
    assert before - resident_file_kb() > 15 << 10
    assert torch.equal(a, drawn["a"])
    assert torch.equal(c, drawn["c"])


@pytest.mark.parametrize("count", [0, 1, 100, 1023])
def test_a_tensor_smaller_than_a_page_keeps_its_values(count: int) -> None:
    tensor = torch.ones(count)
    drop_pages(tensor)
    assert tensor.sum() == count


def test_a_strided_tensor_keeps_its_values() -> None:
    whole = torch.ones(4096, 8)
    drop_pages(whole[:, :4])
    assert whole.sum() == whole.numel()


@pytest.mark.parametrize(("rows", "returned"), [(device._LONG_ROWS + 1, 2), (device._LONG_ROWS, 0)])
@pytest.mark.parametrize("fails", [False, True])
async def test_the_memory_of_a_long_clip_is_returned(
    fails: bool, rows: int, returned: int, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it, and what earlier clips left before it."""
    calls: list[None] = []
    monkeypatch.setattr(device, "return_memory", lambda: calls.append(None))
    prepare = Preparation(checkpoint.load(str(tiny_checkpoint), torch.device("cpu"), torch.float32), torch.float32)
    item = prepare(torch.zeros(4000, dtype=torch.int16).numpy(), ["a"])
    long = Prepared(item.mel, item.ids.repeat(-(-rows // item.rows))[:rows], slots=0)
    thread = ModelThread(torch.device("cpu"))

    def forward(batch: Sequence[Prepared]) -> list[TimestampSlots]:
        if fails:
            raise RuntimeError("out of order")
        return []

    await thread.load(lambda: forward)
    try:
        await thread.run([long])
    except RuntimeError:
        assert fails
    thread.close()
    assert len(calls) == returned


@pytest.mark.parametrize(("seconds", "returned"), [(engine._LONG_SECONDS, 0), (engine._LONG_SECONDS + 1, 1)])
async def test_kept_memory_is_returned_before_the_spectrogram_of_a_long_clip(
    seconds: int, returned: int, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    running = QwenEngine(EngineSettings(), QwenSettings(model=str(tiny_checkpoint), device="cpu", dtype="fp32"))
    await running.start()
    monkeypatch.setattr(engine, "return_memory", lambda: calls.append(None))
    tokens = await running.tokenise("a word", "en")
    await running.align(Clip(torch.zeros(seconds * SAMPLE_RATE, dtype=torch.int16).numpy()), tokens, "en", Caller())
    await running.close()
    assert len(calls) == returned


_MANY_SHAPES = """
import ctypes, sys, torch
from aligner_svc.engines.qwen.layers import FusedLinear
from aligner_svc.engines.qwen.memory import keep_few_kernels

class Heap(ctypes.Structure):
    names = "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Heap

def used():
    return mallinfo().uordblks + mallinfo().hblkhd

torch.set_num_threads(1)
if sys.argv[1] == "few":
    keep_few_kernels()
with torch.inference_mode():
    layer = FusedLinear(torch.nn.Linear(32, 32))
    before = used()
    for rows in range(1, 601):
        layer(torch.zeros(rows, 32))
print((used() - before) >> 20)
"""


def test_kernels_of_many_shapes_do_not_accumulate() -> None:
    """MiB for 600 of them, in a process of its own: oneDNN reads its settings once."""
    environment = {name: value for name, value in os.environ.items() if name not in memory._KERNEL_CACHES}

    def growth(kept: str) -> int:
        command = [sys.executable, "-c", _MANY_SHAPES, kept]
        return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)

    grown = {kept: growth(kept) for kept in ("all", "few")}
    assert grown["few"] < 100
    assert grown["all"] > 2 * grown["few"]
