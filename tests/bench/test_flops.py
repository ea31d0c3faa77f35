"""bench/flops.py against what PyTorch counts while the model runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from aligner_svc.engines.qwen import checkpoint
from aligner_svc.engines.qwen.checkpoint import Checkpoint
from aligner_svc.engines.qwen.devices.preparation import Preparation, Prepared
from aligner_svc.engines.qwen.forward import PackedAligner
from bench.flops import count
from tests.kit.checkpoint import build

CLIPS = ((0.4, 1), (1.0, 2), (3.21, 3), (8.0, 5), (11.7, 8))
"""Seconds and words: under a chunk, whole ones, a window, more than one."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder: Path = build(tmp_path_factory.mktemp("flops"))
    return checkpoint.load(str(folder), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def batch(loaded: Checkpoint) -> list[Prepared]:
    draw, preparation = np.random.default_rng(0), Preparation(loaded, torch.float32)
    clips = [draw.normal(0, 1000, int(seconds * 16_000)).astype(np.int16) for seconds, _ in CLIPS]
    return [preparation(clip, ["word"] * words) for clip, (_, words) in zip(clips, CLIPS, strict=True)]


def squares(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], *, causal: bool) -> torch.Tensor:
    """Attention whose products every counter knows: all pairs of a sequence, those too that causal attention leaves out."""
    key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], 1) for part in (key, value))
    mixed = []
    for start, end in pairwise(accumulate(lengths, initial=0)):
        q, k, v = (part[start:end].transpose(0, 1) for part in (query, key, value))
        mixed.append(torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v).transpose(0, 1))
    return torch.cat(mixed)


@pytest.fixture(scope="module")
def seen(loaded: Checkpoint, batch: list[Prepared]) -> dict[str, int]:
    """Operator -> operations, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        PackedAligner(loaded, squares, fused=False)(batch)
    return {str(operator): operations for operator, operations in counter.get_flop_counts()["Global"].items()}


def test_convolutions_and_linear_layers_are_what_pytorch_counts(
    loaded: Checkpoint, batch: list[Prepared], seen: dict[str, int]
) -> None:
    counted = count(loaded.thinker.config, batch)
    assert counted.convolutions == seen["aten.convolution"]
    assert counted.linear == seen["aten.mm"] + seen["aten.addmm"]


def test_attention_is_what_pytorch_counts_but_for_the_pairs_that_may_not_see_each_other(
    loaded: Checkpoint, batch: list[Prepared], seen: dict[str, int]
) -> None:
    """Windows are counted as they are. Of a causal square, flops.py counts the half with the diagonal: n (n + 1) / 2 of n n."""
    counted = count(loaded.thinker.config, batch)
    square = sum(item.rows * item.rows for item in batch)
    half = sum(item.rows * (item.rows + 1) // 2 for item in batch)
    # Of the rotary embedding, and no part of the attention: three axes, each row's position times each frequency.
    angles = 2 * 3 * sum(item.rows for item in batch) * loaded.thinker.config.text_config.head_dim // 2
    attention = seen["aten.bmm"] - angles
    assert attention * half == counted.encoder_attention * half + counted.decoder_attention * square


def test_the_total_grows_with_the_batch_and_with_nothing_else(loaded: Checkpoint, batch: list[Prepared]) -> None:
    config = loaded.thinker.config
    assert (
        count(config, [*batch, *batch]).total
        == 2 * count(config, batch).total
        == 2 * sum(count(config, [i]).total for i in batch)
    )
