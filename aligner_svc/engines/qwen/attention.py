"""Attention over packed sequences: clips lie one after the other in one tensor, and none sees another.

Three ways to the same numbers. On a GPU in half precision one kernel takes all sequences at once. On a
CPU, PyTorch's own attention kernel reaches a fifth of what the machine multiplies bf16 matrices with;
two batched products with a softmax between them reach more than twice that. Everything else goes
sequence by sequence through PyTorch's kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

_ROWS = 256
"""Query rows a block of causal attention has: its scores against 2,000 keys fit into the L3 cache."""


class Attention(Protocol):
    """Softmax attention, scaled by 1 / sqrt(depth)."""

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], *, causal: bool
    ) -> torch.Tensor:
        """`query` [rows, heads, depth], `key` and `value` [rows, groups, depth]: heads are a multiple of groups.

        Gives the shape of `query` back. `lengths`: rows of each sequence, in order; they add up to `rows`.
        """


def for_device(device: torch.device, dtype: torch.dtype) -> Attention:
    """The quickest way on this device."""
    if device.type == "cpu":
        return blocked
    if device.type == "cuda" and dtype in {torch.bfloat16, torch.float16} and torch.cuda.get_device_capability(device) >= (8, 0):
        return fused
    return one_by_one


def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], *, causal: bool) -> torch.Tensor:
    """FlashAttention over all sequences in one launch; bf16 or fp16 on a GPU from Ampere on."""
    ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(query.device, non_blocking=True)
    longest = max(lengths)
    # One split: the order of additions, and so the last bit, must not depend on what else is in the batch.
    out = varlen_attn(
        query, key, value, ends, ends, longest, longest,
        window_size=(-1, 0 if causal else -1), enable_gqa=query.shape[1] != key.shape[1], num_splits=1,
    )  # fmt: skip
    assert isinstance(out, torch.Tensor)
    return out


def one_by_one(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], *, causal: bool
) -> torch.Tensor:
    """PyTorch's attention for each sequence by itself; any device, any precision."""
    out = torch.empty_like(query)
    for start, end in _spans(lengths):
        q, k, v = (part[start:end].transpose(0, 1).unsqueeze(0) for part in (query, key, value))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])
        out[start:end] = mixed.squeeze(0).transpose(0, 1)
    return out


def blocked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], *, causal: bool) -> torch.Tensor:
    """Two batched products with a softmax between them."""
    heads, groups, depth = query.shape[1], key.shape[1], query.shape[2]
    # [groups, rows, heads of a group, depth]: the heads that share a key are rows of one product.
    query = (query * depth**-0.5).view(-1, groups, heads // groups, depth).transpose(0, 1)
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    key, value = key.permute(1, 2, 0), value.transpose(0, 1)
    if causal:
        for start, end in _spans(lengths):
            _causal(query[:, start:end], key[..., start:end], value[:, start:end], out[:, start:end])
    else:
        for start, end, length in _runs(lengths):
            _full(query[:, start:end], key[..., start:end], value[:, start:end], out[:, start:end], length)
    return out.transpose(0, 1).reshape(-1, heads, depth)


def _causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: torch.Tensor) -> None:
    """One sequence; the keys after a block's last row are not multiplied at all."""
    groups, rows, share, depth = query.shape
    future = torch.full((_ROWS, _ROWS), float("-inf"), dtype=query.dtype).triu(1)
    for start in range(0, rows, _ROWS):
        end = min(start + _ROWS, rows)
        count = end - start
        scores = torch.bmm(query[:, start:end].reshape(groups, count * share, depth), key[..., :end])
        scores.view(groups, count, share, end)[..., start:].add_(future[:count, None, :count])
        mixed = torch.bmm(torch.softmax(scores, -1), value[:, :end])
        out[:, start:end] = mixed.view(groups, count, share, depth)


def _full(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: torch.Tensor, length: int) -> None:
    """Neighbouring sequences of one length, all at once."""
    groups, rows, share, depth = query.shape
    many = rows // length
    q = query.reshape(groups * many, length * share, depth)
    k = key.reshape(groups, depth, many, length).transpose(1, 2).reshape(groups * many, depth, length)
    v = value.reshape(groups * many, length, depth)
    out.copy_(torch.bmm(torch.softmax(torch.bmm(q, k), -1), v).view(groups, rows, share, depth))


def _spans(lengths: Sequence[int]) -> list[tuple[int, int]]:
    edges = [0]
    for length in lengths:
        edges.append(edges[-1] + length)
    return list(pairwise(edges))


def _runs(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """(start, end, length) of the stretches in which every sequence has the same length."""
    runs: list[tuple[int, int, int]] = []
    for (start, end), length in zip(_spans(lengths), lengths, strict=True):
        if runs and runs[-1][2] == length:
            runs[-1] = (runs[-1][0], end, length)
        else:
            runs.append((start, end, length))
    return runs
