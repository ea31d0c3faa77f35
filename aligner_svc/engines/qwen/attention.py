"""Attention over packed sequences: clips lie one after the other in one tensor, and none sees another.

Three ways to the same numbers. On a GPU in half precision one kernel takes all sequences at once. On a
CPU, PyTorch's own attention kernel reaches a fifth of what the machine multiplies bf16 matrices with;
two batched products with a softmax between them reach more than twice that. Everything else goes
sequence by sequence through PyTorch's kernel.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

log = logging.getLogger(__name__)

_ROWS, _LONG_ROWS = 128, 256
"""Query rows of a block of causal attention, in short sequences and in long ones. More rows share the product's packing of the
keys, and multiply more of those that none of them may see."""
_LONG = 2000
"""Rows of a sequence from which the second pays, with one group of heads at a time: a block's scores and their softmax then stay
in a CPU's caches between the two products."""

_HALVES = frozenset({torch.bfloat16, torch.float16})
_AMPERE = (8, 0)
"""Compute capability FlashAttention asks for."""


class Attention(Protocol):
    """Softmax attention, scaled by 1 / sqrt(depth)."""

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], *, causal: bool
    ) -> torch.Tensor:
        """`query` [rows, heads, depth], `key` and `value` [rows, groups, depth]: heads are a multiple of groups.

        Gives the shape of `query` back, and may use its memory for it. `lengths`: rows of each sequence,
        in order; they add up to `rows`.
        """


def for_device(device: torch.device, dtype: torch.dtype) -> Attention:
    """The quickest way on this device."""
    if device.type == "cpu":
        return blocked
    if device.type != "cuda" or dtype not in _HALVES or torch.cuda.get_device_capability(device) < _AMPERE:
        return one_by_one
    return next((kernel for kernel in (fused, fused_splitting) if _works(kernel, device, dtype)), one_by_one)


def _works(kernel: Attention, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this PyTorch's kernel takes what it is given: better asked once, at start, than by every call."""
    probe = torch.zeros((8, 2, 64), device=device, dtype=dtype)
    try:
        kernel(probe, probe[:, :1], probe[:, :1], [3, 5], causal=True)
    except (RuntimeError, TypeError) as error:
        log.warning("not used: %s: %s", kernel, error)
        return False
    return True


class Fused:
    """FlashAttention over all sequences in one launch; bf16 or fp16 on a GPU from Ampere on."""

    def __init__(self, splits: int | None) -> None:
        """`splits` 1: the order of additions, and so the last bit, does not depend on what else is in the batch.

        Not every version of the kernel lets itself be told so; None leaves it to the kernel.
        """
        self._splits = splits

    def __repr__(self) -> str:
        return f"FlashAttention, splits {self._splits or 'as it likes'}"

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], *, causal: bool
    ) -> torch.Tensor:
        ends, longest = _ends(tuple(lengths), query.device), max(lengths)
        out = varlen_attn(
            query, key, value, ends, ends, longest, longest,
            window_size=(-1, 0 if causal else -1), enable_gqa=query.shape[1] != key.shape[1], num_splits=self._splits,
        )  # fmt: skip
        assert isinstance(out, torch.Tensor)
        return out


fused = Fused(splits=1)
fused_splitting = Fused(splits=None)


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
    """Two batched products with a softmax between them; the answer lies where `query` lay."""
    rows, heads, depth = query.shape
    groups = key.shape[1]
    # [groups, rows, heads of a group, depth]: the heads that share a key are rows of one product.
    grouped = query.view(rows, groups, heads // groups, depth).transpose(0, 1)
    # A product whose second factor lies scattered takes twice as long. No copies if they were written so.
    key, value = key.transpose(0, 1).contiguous().transpose(1, 2), value.transpose(0, 1).contiguous()
    if causal:
        blocks = [_Block.of(length, groups, heads // groups) for length in lengths]
        room = _Room(query, blocks, heads // groups)
        future = _future(max(block.rows for block in blocks), query.dtype)
        for (start, end), block in zip(_spans(lengths), blocks, strict=True):
            for first in range(0, groups, block.groups):
                some = slice(first, first + block.groups)
                _causal(grouped[some, start:end], key[some, :, start:end], value[some, start:end], future, room, block.rows)
    else:
        for start, end, length in _runs(lengths):
            _full(grouped[:, start:end], key[..., start:end], value[:, start:end], length)
    return query


class _Block(NamedTuple):
    """How much of one sequence's causal attention is worked through at a time. Its length alone decides, not its batch."""

    rows: int
    groups: int
    scores: int

    @classmethod
    def of(cls, length: int, groups: int, share: int) -> _Block:
        """`share`: heads of a group."""
        rows, some = (_LONG_ROWS, 1) if length >= _LONG else (min(length, _ROWS), groups)
        return cls(rows, some, some * share * rows * length)


class _Room:
    """Memory for one block's queries, scores and their softmax, taken once for all blocks: they are long clips' largest."""

    def __init__(self, like: torch.Tensor, blocks: Sequence[_Block], share: int) -> None:
        """`like` [rows, heads, depth]; `share`: heads of a group."""
        most = max(block.scores for block in blocks)
        self._scores, self._weights = like.new_empty(most), like.new_empty(most)
        self._queries = like.new_empty(max(block.rows * block.groups for block in blocks) * share * like.shape[-1])

    def queries(self, query: torch.Tensor) -> torch.Tensor:
        """[groups, rows, share, depth] to [groups, rows * share, depth]."""
        return self._queries[: query.numel()].view(query.shape).copy_(query).flatten(1, 2)

    def scores(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """[batch, rows, depth] times [batch, depth, columns], scaled."""
        shape = (*query.shape[:2], key.shape[2])
        return _multiply(query, key, self._scores[: math.prod(shape)].view(shape), scale=query.shape[2] ** -0.5)

    def softmax(self, scores: torch.Tensor) -> torch.Tensor:
        return torch.softmax(scores, -1, out=self._weights[: scores.numel()].view(scores.shape))


def _causal(  # noqa: PLR0917 - three tensors, and what all blocks share
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, future: torch.Tensor, room: _Room, step: int
) -> None:
    """Some groups of one sequence, in blocks of `step` rows; the keys after a block's last row are not multiplied at all."""
    groups, rows, share, depth = query.shape
    for start in range(0, rows, step):
        end = min(start + step, rows)
        count = end - start
        block = room.queries(query[:, start:end])
        scores = room.scores(block, key[..., :end])
        scores.view(groups, count, share, end)[..., start:].add_(future[:count, None, :count])
        mixed = _multiply(room.softmax(scores), value[:, :end], block)
        query[:, start:end] = mixed.view(groups, count, share, depth)


def _multiply(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
    """A batch of matrix products, [batch, rows, inner] times [batch, inner, columns], times `scale` before it is rounded.

    Where `right` is a part of a larger tensor, bmm copies it first, and slowly if its columns lie one after the other. One
    product takes it where it lies, but many are so small each that two cores get in each other's way.
    """
    if len(left) == 1:
        out[0].addmm_(left[0], right[0], beta=0, alpha=scale)
        return out
    if right.stride(1) == 1:
        right = right.transpose(1, 2).contiguous().transpose(1, 2)
    return out.baddbmm_(left, right, beta=0, alpha=scale)


def _full(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, length: int) -> None:
    """Neighbouring sequences of one length, all at once."""
    groups, rows, share, depth = query.shape
    many = rows // length
    q = query.reshape(groups * many, length * share, depth)
    k = key.reshape(groups, depth, many, length).transpose(1, 2).reshape(groups * many, depth, length)
    v = value.reshape(groups * many, length, depth)
    scores = _multiply(q, k, q.new_empty((groups * many, length * share, length)), scale=depth**-0.5)
    query.copy_(torch.bmm(torch.softmax(scores, -1), v).view(groups, rows, share, depth))


@lru_cache(maxsize=8)
def _future(rows: int, dtype: torch.dtype) -> torch.Tensor:
    """[rows, rows]: minus infinity wherever a row does not see a column, which comes after it."""
    return torch.full((rows, rows), float("-inf"), dtype=dtype).triu(1)


@lru_cache(maxsize=8)
def _ends(lengths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Where each sequence ends, after a 0. Every layer asks for the same: one upload for all of them."""
    return torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)


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
