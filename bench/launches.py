"""How many operations a pass takes on a GPU, counted on a CPU: what a launch costs there, and what is copied.

    .venv/bin/python -m bench.launches          batches of 1, 8 and 64 clips of 30 s

The model has as many layers as the published one, of a small width: the width changes no operation. Attention, one kernel on
a GPU, counts as one. Views and allocations are no launches, and are not counted.
"""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from aligner_svc.engines.qwen import checkpoint, forward, glue
from aligner_svc.engines.qwen.devices.preparation import Preparation
from aligner_svc.engines.qwen.forward import PackedAligner
from bench.synthetic import speech
from tests.kit.checkpoint import TINY, build

_NO_LAUNCH = frozenset(
    (
        *("view", "_unsafe_view", "as_strided", "slice", "select", "expand", "permute", "transpose", "t", "unsqueeze", "squeeze"),
        *("split", "split_with_sizes", "unbind", "alias", "detach", "chunk", "flatten", "unflatten", "view_as", "lift_fresh"),
        *("empty", "empty_like", "new_empty", "empty_strided", "empty_permuted", "new_empty_strided", "is_pinned"),
        *("resolve_conj", "resolve_neg"),  # of numpy()
    )
)


class Launches(TorchDispatchMode):
    """Counts, by name, the operations that would each be a kernel on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        result = function(*args, **(kwargs or {}))
        if name not in _NO_LAUNCH and not (name == "to" and result is args[0]):
            self.counts[name] += 1
        return result


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], *, causal: bool
) -> torch.Tensor:
    """One operation, as FlashAttention is; its result is of no use."""
    return query.clone(memory_format=torch.contiguous_format)


def one_kernel(heads: torch.Tensor, *_: Any) -> torch.Tensor:
    """What torch.compile makes of `rotate`; its result is of no use."""
    return heads.clone(memory_format=torch.contiguous_format)


def one_gate(both: torch.Tensor) -> torch.Tensor:
    return both.chunk(2, -1)[0].clone(memory_format=torch.contiguous_format)


def deep() -> dict[str, Any]:
    """Small layers, as many as published."""
    size = copy.deepcopy(TINY)
    size["audio_config"]["encoder_layers"] = 24
    size["text_config"]["num_hidden_layers"] = 28
    return size


def as_on_a_gpu() -> None:
    """All rows at once: on a CPU they go through the layers in parts."""
    forward._ROWS = 1 << 30  # noqa: SLF001
    for parts in (forward._CONVOLVED, forward._HEAD_ROWS):  # noqa: SLF001
        parts["cpu"] = parts["cuda"]


def count(aligner: PackedAligner, prepare: Preparation, batch: int, seconds: float = 30.0) -> Counter[str]:
    clips = [speech(seconds, seed) for seed in range(min(4, batch))]
    ready = [prepare(clip.samples, [token.spoken[0] for token in clip.tokens]) for clip in clips]
    items = [ready[index % len(ready)] for index in range(batch)]
    with Launches() as launches:
        aligner(items)
    return launches.counts


def main() -> None:
    as_on_a_gpu()
    with tempfile.TemporaryDirectory() as scratch:
        loaded = checkpoint.load(str(build(Path(scratch), deep())), torch.device("cpu"), torch.float32)
        prepare, aligner = Preparation(loaded, torch.float32), PackedAligner(loaded, attention, fused=False)
        print("| clips of 30 s | operations | where compiled | most frequent, not compiled |\n|---|---|---|---|")
        plain = aligner._glue  # noqa: SLF001
        for batch in (1, 8, 64):
            aligner._glue = plain  # noqa: SLF001
            found = count(aligner, prepare, batch)
            aligner._glue = glue.Glue(one_kernel, one_gate)  # noqa: SLF001
            compiled = count(aligner, prepare, batch).total()
            most = ", ".join(f"{number} {name}" for name, number in found.most_common(6))
            print(f"| {batch} | {found.total()} | {compiled} | {most} |", flush=True)


if __name__ == "__main__":
    main()
