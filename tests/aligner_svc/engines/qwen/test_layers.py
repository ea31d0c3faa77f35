"""The fused layers equal PyTorch's and qwen-asr's own, and drop the weights they were made from."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from aligner_svc.config.engine import QwenSettings
from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.engines.qwen import checkpoint, layers
from aligner_svc.engines.qwen.device import resolve_dtype
from aligner_svc.engines.qwen.devices.preparation import Preparation
from aligner_svc.engines.qwen.forward import PackedAligner
from aligner_svc.engines.qwen.layers import (
    Convolution,
    FusedConvolution,
    FusedLinear,
    FusedRMSNorm,
    Linear,
    RMSNorm,
    fit,
    fused_work,
)
from aligner_svc.engines.qwen.modules import Qwen3ASRForConditionalGeneration
from tests.kit import qwen_material

pytestmark = pytest.mark.usefixtures("one_torch_thread")

CPU = torch.device("cpu")
MODELING: Any = sys.modules[Qwen3ASRForConditionalGeneration.__module__]
"""qwen-asr's own layers. Importing them by name would run the whole package (see modules.py)."""
HALF = resolve_dtype(QwenSettings(), CPU) is torch.bfloat16
"""Whether this CPU has the instructions of oneDNN's kernels in half precision: AVX-512 or later."""
DTYPES = [torch.float32, *[torch.bfloat16] * HALF]
_WITHIN = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.bfloat16: {"rtol": 0.02, "atol": 0.02}}
"""Half precision: fused layers round once where plain ones round twice."""
_FORMULAS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "forward": lambda out: out,
    "gelu": functional.gelu,
    "silu": functional.silu,
}


def drawn(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def double(module: nn.Module) -> Any:
    return copy.deepcopy(module).double()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("then", _FORMULAS)
@pytest.mark.parametrize("kind", [Linear, FusedLinear])
def test_linear_layers(kind: type[Linear], then: str, bias: bool, dtype: torch.dtype) -> None:
    plain = nn.Linear(48, 96, bias=bias, dtype=dtype).requires_grad_(False)
    layer = kind(plain)
    for count in (1, 2, 17, 200):
        rows = drawn(count, 48, dtype=dtype)
        wanted = _FORMULAS[then](double(plain)(rows.double()))
        out = getattr(layer, then)(rows)
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), wanted, **_WITHIN[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 24])
@pytest.mark.parametrize("kind", [Convolution, FusedConvolution])
def test_convolutions(kind: type[Convolution], channels: int, dtype: torch.dtype) -> None:
    """For any number of chunks, whatever the first call had."""
    plain = nn.Conv2d(channels, 24, 3, 2, padding=1, dtype=dtype).requires_grad_(False)
    reference, layer = double(plain), kind(plain)
    for many in (2, 1, 5):
        maps = drawn(many, channels, 128, 100, dtype=dtype).contiguous(memory_format=torch.channels_last)
        out = layer(maps)
        assert out.shape == (many, 24, 64, 50)
        torch.testing.assert_close(out.double(), functional.gelu(reference(maps.double())), **_WITHIN[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 48), (17, 48), (9, 4, 16)])
@pytest.mark.parametrize("kind", [RMSNorm, FusedRMSNorm])
def test_norms(kind: type[RMSNorm], shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Large rows, small ones and zeros, against qwen-asr's own module."""
    plain = MODELING.Qwen3ASRTextRMSNorm(shape[-1], eps=1e-6).to(dtype).requires_grad_(False)
    plain.weight.copy_(drawn(shape[-1], dtype=dtype, seed=1))
    layer = kind(plain.weight, plain.variance_epsilon)
    for scale in (1.0, 1e3, 1e-4, 0.0):
        rows = drawn(*shape, dtype=dtype) * scale
        before = rows.clone()
        torch.testing.assert_close(layer(rows), plain(rows), rtol=1e-5 if dtype == torch.float32 else 2**-7, atol=1e-6)
        assert torch.equal(rows, before)


def model(dtype: torch.dtype = torch.float32) -> nn.Module:
    norm = MODELING.Qwen3ASRTextRMSNorm(2048).to(dtype)
    inner = nn.Sequential(nn.Linear(2048, 1024, dtype=dtype), nn.Conv2d(1, 8, 3, dtype=dtype), norm)
    return nn.Sequential(nn.Linear(16, 16, dtype=dtype), inner, nn.LayerNorm(8)).requires_grad_(False)


@pytest.mark.parametrize(
    ("fused", "kinds"), [(True, [FusedLinear, FusedConvolution, FusedRMSNorm]), (False, [Linear, Convolution, RMSNorm])]
)
def test_every_layer_of_a_model_is_replaced_once(fused: bool, kinds: list[type]) -> None:
    whole = model()
    fit(whole, fused=fused)
    inner = whole[1]
    assert [type(child) for child in (whole[0], *inner, whole[2])] == [kinds[0], *kinds, nn.LayerNorm]
    first = list(whole.modules())
    fit(whole, fused=fused)
    assert list(whole.modules()) == first


def test_reordered_weights_are_dropped() -> None:
    """8 MB of them here, and nothing before or after them."""
    whole = model()
    linear = whole[1][0]
    memory = torch.full((linear.weight.numel() + 4096,), 3.0)
    memory[2048:-2048] = linear.weight.flatten()
    linear.weight = nn.Parameter(memory[2048:-2048].view_as(linear.weight), requires_grad=False)
    rows = drawn(3, 2048, dtype=torch.float32)
    wanted = linear(rows)
    fit(whole, fused=True)
    torch.testing.assert_close(whole[1][0](rows), wanted, **_WITHIN[torch.float32])
    assert (memory[:2048] == 3).all()
    assert (memory[-2048:] == 3).all()
    assert (memory[2048:-2048] == 0).float().mean() > 0.99


@pytest.mark.parametrize("buffer", [False, True])
def test_weights_used_elsewhere_are_not_dropped(buffer: bool) -> None:
    whole = nn.Sequential(nn.Embedding(1024, 2048), nn.Linear(2048, 1024, bias=False)).requires_grad_(False)
    if buffer:
        whole.register_buffer("table", whole[1].weight.data)
    else:
        whole[1].weight = whole[0].weight
    others = whole.table if buffer else whole[0].weight
    before = others.clone()
    fit(whole, fused=True)
    assert torch.equal(others, before)


def test_fused_layers_work_on_this_machine() -> None:
    """Otherwise the other tests here and of the model would not cover them. Half precision on CPUs that have it."""
    assert fused_work(CPU, torch.float32)
    assert fused_work(CPU, torch.bfloat16) == HALF


@pytest.mark.parametrize("error", [RuntimeError("no such kernel"), AttributeError("_linear_pointwise")])
def test_plain_layers_are_used_where_fused_ones_fail(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path
) -> None:
    """The kernels' names are private: another PyTorch may have others."""

    def missing(*_: object) -> torch.Tensor:
        raise error

    monkeypatch.setattr(FusedLinear, "_then", missing)
    assert not fused_work(CPU, torch.float32)
    loaded = checkpoint.load(str(tiny_checkpoint), CPU, torch.float32)
    PackedAligner(loaded)
    assert type(loaded.thinker.lm_head) is Linear


def test_a_gpu_has_no_fused_layers() -> None:
    assert not fused_work(torch.device("cuda"), torch.bfloat16)


def test_the_model_answers_the_same_with_either(tiny_checkpoint: Path) -> None:
    """A GPU uses the plain layers: their parity with qwen-asr follows from that of the fused ones, which is tested in full."""
    logits = []
    for fused in (True, False):
        loaded = checkpoint.load(str(tiny_checkpoint), CPU, torch.float32)
        prepare = Preparation(loaded, torch.float32)
        aligner = PackedAligner(loaded, fused=fused)
        assert isinstance(loaded.thinker.lm_head, FusedLinear) == fused
        samples = [qwen_material.audio(np.random.default_rng(index), count) for index, count in enumerate((5_000, 150_000))]
        batch = [prepare(clip, ["one", "two", "three"] * 4) for clip in samples]
        logits.append(aligner.logits(batch))
        assert samples[1].size > 9 * SAMPLE_RATE
    one, other = logits
    assert len(set(one.argmax(-1).tolist())) > 5
    assert (one - other).abs().max() < 1e-5 * one.abs().max()
    assert one.argmax(-1).tolist() == other.argmax(-1).tolist()


def test_merged_products_have_the_weights_of_their_parts() -> None:
    """A part may lack a bias, as the encoder's keys do."""
    parent = nn.Module()
    for name, bias in (("q", True), ("k", False), ("v", True)):
        parent.add_module(name, nn.Linear(8, 4, bias=bias).requires_grad_(False))
    rows = torch.randn(3, 8)
    apart = [parent.get_submodule(name)(rows) for name in "qkv"]
    merged = layers._merged(parent, *"qkv")
    assert not list(parent.children())
    torch.testing.assert_close(merged(rows), torch.cat(apart, -1))
