"""Packed attention equals softmax attention within each sequence; no sequence affects another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from aligner_svc.engines.qwen import attention
from aligner_svc.engines.qwen.attention import Attention, blocked, for_device, fused, fused_splitting, one_by_one

pytestmark = pytest.mark.usefixtures("one_torch_thread")

_ROWS = attention._ROWS
_LENGTHS = [
    [1], [2, 1, 1], [7, 7, 7], [104, 104, 30], [104, 104, 30, 30, 5], [_ROWS - 1], [_ROWS], [_ROWS + 1, 3],
    [2 * _ROWS, 2 * _ROWS], [3 * _ROWS + 17, 1, _ROWS],
]  # fmt: skip
_SHAPES = [(1, 1, 8), (4, 4, 16), (4, 2, 16), (6, 1, 5), (16, 8, 64)]
"""Heads, groups, depth."""


def drawn(
    lengths: Sequence[int], shape: tuple[int, int, int], *, sharp: float = 1.0, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    heads, groups, depth = shape
    chance = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(sum(lengths), many, depth, generator=chance) for many in (heads, groups, groups))
    return query * sharp, key, value


def attended(attend: Attention, material: Sequence[torch.Tensor], lengths: Sequence[int], *, causal: bool) -> torch.Tensor:
    """The result, which may overwrite the query; keys and values must be unchanged."""
    query, key, value = (part.clone() for part in material)
    out = attend(query, key, value, lengths, causal=causal)
    assert out.shape == material[0].shape
    torch.testing.assert_close((key, value), tuple(material[1:]), rtol=0, atol=0, equal_nan=True)
    return out


def formula(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], *, causal: bool) -> torch.Tensor:
    """The textbook formula in float64."""
    share = query.shape[1] // key.shape[1]
    query, key, value = query.double(), key.double().repeat_interleave(share, 1), value.double().repeat_interleave(share, 1)
    parts = []
    for q, k, v in zip(*(part.split(list(lengths)) for part in (query, key, value)), strict=True):
        scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
        if causal:
            scores = scores.masked_fill(torch.ones(len(q), len(q), dtype=torch.bool).triu(1), -torch.inf)
        parts.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v))
    return torch.cat(parts)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", _SHAPES)
@pytest.mark.parametrize("attend", [blocked, one_by_one])
def test_it_equals_the_textbook_formula(attend: Attention, shape: tuple[int, int, int], causal: bool) -> None:
    for lengths in _LENGTHS:
        for sharp in (1.0, 20.0):
            material = drawn(lengths, shape, sharp=sharp)
            out = attended(attend, material, lengths, causal=causal)
            torch.testing.assert_close(out.double(), formula(*material, lengths, causal=causal), rtol=0, atol=1e-5 * sharp)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("attend", [blocked, one_by_one])
def test_random_lengths_equal_the_formula(attend: Attention, causal: bool) -> None:
    chance = np.random.default_rng(0)
    for seed in range(25):
        lengths = [int(length) for length in np.exp(chance.uniform(0, np.log(2.5 * _ROWS), chance.integers(1, 9)))]
        groups = int(chance.integers(1, 5))
        material = drawn(lengths, (groups * int(chance.integers(1, 4)), groups, int(chance.integers(1, 33))), seed=seed)
        out = attended(attend, material, lengths, causal=causal)
        torch.testing.assert_close(out.double(), formula(*material, lengths, causal=causal), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_long_sequences_are_computed_a_group_of_heads_at_a_time(dtype: torch.dtype) -> None:
    """In blocks of more rows, and to the same bits alone as in a batch."""
    long = attention._LONG + 300
    lengths = [attention._LONG - 1, 5, long]
    material = [part.to(dtype) for part in drawn(lengths, (4, 2, 16))]
    assert attention._Block.of(long, 2, 2)[:2] == (attention._LONG_ROWS, 1)
    assert attention._Block.of(attention._LONG - 1, 2, 2)[:2] == (_ROWS, 2)
    out = attended(blocked, material, lengths, causal=True)
    within = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(out.double(), formula(*material, lengths, causal=True), rtol=within, atol=within)
    alone = attended(blocked, [part[-long:] for part in material], [long], causal=True)
    assert torch.equal(alone, out[-long:])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("attend", [blocked, one_by_one])
def test_half_precision(attend: Attention, causal: bool) -> None:
    """Eight bits of mantissa, rounded a few times."""
    lengths = [104, 104, 3 * _ROWS + 17]
    material = [part.bfloat16() for part in drawn(lengths, (4, 2, 64))]
    out = attended(attend, material, lengths, causal=causal)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), formula(*material, lengths, causal=causal), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("attend", [blocked, one_by_one])
def test_nothing_leaks_from_one_sequence_to_another(attend: Attention, causal: bool) -> None:
    lengths = [40, 40, 40, _ROWS + 9, 5]
    material = drawn(lengths, (4, 2, 16))
    before = attended(attend, material, lengths, causal=causal).split(lengths)
    for changed in range(len(lengths)):
        start, end = sum(lengths[:changed]), sum(lengths[: changed + 1])
        other = [part.clone() for part in material]
        for part in other:
            part[start:end] = torch.nan
        after = attended(attend, other, lengths, causal=causal).split(lengths)
        for place in range(len(lengths)):
            assert after[place].isnan().all() if place == changed else torch.equal(after[place], before[place])


@pytest.mark.parametrize("attend", [blocked, one_by_one])
def test_nothing_leaks_from_the_future(attend: Attention) -> None:
    length = 2 * _ROWS + 40
    for cut in (1, 17, _ROWS - 1, _ROWS, _ROWS + 1, 2 * _ROWS + 39):
        material = drawn([length], (4, 2, 16))
        before = attended(attend, material, [length], causal=True)
        for part in material[1:]:
            part[cut:] = 1e3
        after = attended(attend, material, [length], causal=True)
        torch.testing.assert_close(after[:cut], before[:cut], rtol=0, atol=1e-6)
        assert not torch.allclose(after[cut:], before[cut:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cpu_uses_blocks(dtype: torch.dtype) -> None:
    assert for_device(torch.device("cpu"), dtype) is blocked


@pytest.mark.parametrize(
    ("dtype", "capability", "chosen"),
    [
        (torch.bfloat16, (8, 0), fused),
        (torch.float16, (9, 0), fused),
        (torch.bfloat16, (7, 5), one_by_one),
        (torch.float32, (9, 0), one_by_one),
    ],
)
def test_a_gpu_uses_the_kernel_it_supports(
    dtype: torch.dtype, capability: tuple[int, int], chosen: Attention, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(attention, "works", lambda *_: True)
    assert for_device(torch.device("cuda"), dtype) is chosen


def test_a_kernel_that_does_not_work_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arguments of PyTorch's kernel have changed between versions."""
    broken: list[Attention] = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    monkeypatch.setattr(attention, "works", lambda kernel, *_: kernel not in broken)
    for kernel, next_best in ((fused, fused_splitting), (fused_splitting, one_by_one)):
        assert for_device(torch.device("cuda"), torch.bfloat16) is kernel
        broken.append(kernel)
        assert for_device(torch.device("cuda"), torch.bfloat16) is next_best


@pytest.mark.parametrize("error", [RuntimeError("num_splits is not supported"), TypeError("unexpected keyword")])
def test_a_kernel_that_raises_does_not_work(error: Exception) -> None:
    def kernel(*_: object, **__: object) -> torch.Tensor:
        raise error

    assert not attention.works(kernel, torch.device("cpu"), torch.float32)
    assert attention.works(one_by_one, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_one_kernel_for_all_sequences(dtype: torch.dtype, causal: bool) -> None:
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("needs a GPU")
    kernel = for_device(torch.device("cuda"), dtype)
    assert kernel is not one_by_one
    lengths = [104, 104, 30, 3 * _ROWS + 17, 1]
    for shape in ((16, 16, 64), (16, 8, 128)):
        material = [part.to("cuda", dtype) for part in drawn(lengths, shape)]
        out = attended(kernel, material, lengths, causal=causal)
        wanted = formula(*(part.cpu() for part in material), lengths, causal=causal)
        torch.testing.assert_close(out.cpu().double(), wanted, rtol=0.02, atol=0.02)
        alone = torch.cat(
            [
                attended(
                    kernel, [part[sum(lengths[:place]) : sum(lengths[: place + 1])] for part in material], [length], causal=causal
                )
                for place, length in enumerate(lengths)
            ]
        )
        if kernel is fused:
            assert torch.equal(alone, out)
        else:
            torch.testing.assert_close(alone, out, rtol=0.01, atol=0.01)
