"""Weights are in memory once, and the memory of a long clip is returned."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from aligner_svc.config.engine import QwenSettings
from aligner_svc.engines.qwen import memory
from aligner_svc.engines.qwen.devices import model
from aligner_svc.engines.qwen.devices.feed import Input
from aligner_svc.engines.qwen.devices.model import DeviceBrokenError, Model
from aligner_svc.engines.qwen.devices.wire import Item
from aligner_svc.engines.qwen.memory import drop_pages
from aligner_svc.engines.qwen.timestamps import TimestampSlots

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


@pytest.mark.parametrize(("rows", "returned"), [(model.LONG_ROWS + 1, 2), (model.LONG_ROWS, 0)])
@pytest.mark.parametrize("fails", [False, True])
def test_the_memory_of_a_long_clip_is_returned(
    fails: bool, rows: int, returned: int, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it, and what earlier clips left before its spectrogram."""
    running = Model(QwenSettings(model=str(tiny_checkpoint), device="cpu", dtype="fp32"))
    calls: list[None] = []
    monkeypatch.setattr(model, "return_memory", lambda: calls.append(None))

    def compute(_given: Input) -> list[TimestampSlots]:
        if fails:
            raise RuntimeError("out of order")
        return []

    monkeypatch.setattr(running, "_compute", compute)
    item = Item(np.zeros(4000, np.int16), np.zeros(rows, np.int32))
    if fails:
        with pytest.raises(DeviceBrokenError):
            running.run(running.prepare([item]))
    else:
        assert running.run(running.prepare([item])) == []
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
