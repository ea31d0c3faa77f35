"""Attention over packed sequences: clips are concatenated in one tensor, and none attends to another.

Three implementations. On a GPU in half precision one kernel takes all sequences at once. On a CPU, PyTorch's own attention kernel
reaches a fifth of the machine's bf16 matrix throughput; two batched products with a softmax between them reach more than twice
that. Everything else goes through PyTorch's kernel, one sequence at a time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple, Protocol, Self

import torch
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

log = logging.getLogger(__name__)

_ROWS, _LONG_ROWS = 128, 256
"""Query rows of a block of causal attention, in short and in long sequences. With more rows the product packs the keys less often
but multiplies more masked keys."""
_LONG = 2000
"""Rows of a sequence from which larger blocks pay off, with one group of heads at a time: a block's scores and their softmax then
stay in a CPU's caches between the two products."""
_HALVES = frozenset({torch.bfloat16, torch.float16})
_AMPERE = (8, 0)  # compute capability that FlashAttention needs


class Sequences(tuple[int, ...]):
    """Lengths of sequences. `ends`: cumulative, from 0, int32, on the device, if they are there already."""

    ends: torch.Tensor | None = None
    longest: int
    """Or more: what a recorded pass has to have room for."""

    @classmethod
    def of(cls, lengths: Sequence[int], ends: torch.Tensor, longest: int | None = None) -> Self:
        made = cls(lengths)
        made.ends = ends
        made.longest = longest or max(lengths)
        return made


class Attention(Protocol):
    """Softmax attention, scaled by 1 / sqrt(depth)."""

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], *, causal: bool
    ) -> torch.Tensor:
        """`query` [rows, heads, depth], `key` and `value` [rows, groups, depth]: heads are a multiple of groups.

        Returns the shape of `query`, possibly in its memory. `lengths`: rows of each sequence, in order; their sum is `rows`.
        """


def for_device(device: torch.device, dtype: torch.dtype) -> Attention:
    """The fastest implementation on this device."""
    if device.type == "cpu":
        return blocked
    if device.type != "cuda" or dtype not in _HALVES or torch.cuda.get_device_capability(device) < _AMPERE:
        return one_by_one
    return next((kernel for kernel in (fused, fused_splitting) if works(kernel, device, dtype)), one_by_one)


def works(kernel: Attention, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this PyTorch's kernel accepts our arguments. Tried once, at start, so that no call fails."""
    probe = torch.zeros((8, 2, 64), device=device, dtype=dtype)
    try:
        kernel(probe, probe[:, :1], probe[:, :1], [3, 5], causal=True)
    except (RuntimeError, TypeError) as error:
        log.warning("%s is not used: %s", kernel, error)
        return False
    return True


class Fused:
    """FlashAttention over all sequences in one launch; bf16 or fp16 on a GPU from Ampere on."""

    def __init__(self, splits: int | None) -> None:
        """`splits` 1: the order of additions, and so the last bit, does not depend on the rest of the batch.

        Not every version of the kernel accepts it; None leaves it to the kernel.
        """
        self._splits = splits

    def __repr__(self) -> str:
        return f"FlashAttention with {self._splits or 'automatic'} splits"

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], *, causal: bool
    ) -> torch.Tensor:
        if isinstance(lengths, Sequences) and lengths.ends is not None:
            ends, longest = lengths.ends, lengths.longest
        else:
            ends, longest = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(query.device), max(lengths)
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
    """PyTorch's attention for each sequence separately; any device, any precision."""
    out = torch.empty_like(query)
    for start, end in _spans(lengths):
        q, k, v = (part[start:end].transpose(0, 1).unsqueeze(0) for part in (query, key, value))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])
        out[start:end] = mixed.squeeze(0).transpose(0, 1)
    return out


def blocked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], *, causal: bool) -> torch.Tensor:
    """Two batched products with a softmax between them; the result overwrites `query`."""
    rows, heads, depth = query.shape
    groups = key.shape[1]
    # [groups, rows, heads of a group, depth]: the heads that share a key are rows of one product.
    grouped = query.view(rows, groups, heads // groups, depth).transpose(0, 1)
    # A product whose second factor is strided takes twice as long. No copies if they are contiguous already.
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
    """How much of one sequence's causal attention is computed at a time. Depends on its length alone, not on its batch."""

    rows: int
    groups: int
    scores: int

    @classmethod
    def of(cls, length: int, groups: int, share: int) -> _Block:
        """`share`: heads of a group."""
        rows, some = (_LONG_ROWS, 1) if length >= _LONG else (min(length, _ROWS), groups)
        return cls(rows, some, some * share * rows * length)


class _Room:
    """Memory for one block's queries, scores and their softmax, shared by all blocks: the largest tensors of long clips."""

    def __init__(self, like: torch.Tensor, blocks: Sequence[_Block], share: int) -> None:
        """`like` [rows, heads, depth]; `share`: heads of a group."""
        size = max(block.scores for block in blocks)
        self._scores, self._weights = like.new_empty(size), like.new_empty(size)
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
    """Some groups of one sequence, in blocks of `step` rows; keys after a block's last row are not multiplied at all."""
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
    """A batch of matrix products, [batch, rows, inner] times [batch, inner, columns], times `scale` before rounding.

    If `right` is a view into a larger tensor, bmm copies it first, and slowly if its columns are contiguous. A single product
    needs no copy, but separate products of a batch are too small to use two cores well.
    """
    if len(left) == 1:
        out[0].addmm_(left[0], right[0], beta=0, alpha=scale)
        return out
    if right.stride(1) == 1:
        right = right.transpose(1, 2).contiguous().transpose(1, 2)
    return out.baddbmm_(left, right, beta=0, alpha=scale)


def _full(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, length: int) -> None:
    """Consecutive sequences of one length, all at once."""
    groups, rows, share, depth = query.shape
    many = rows // length
    q = query.reshape(groups * many, length * share, depth)
    k = key.reshape(groups, depth, many, length).transpose(1, 2).reshape(groups * many, depth, length)
    v = value.reshape(groups * many, length, depth)
    scores = _multiply(q, k, q.new_empty((groups * many, length * share, length)), scale=depth**-0.5)
    query.copy_(torch.bmm(torch.softmax(scores, -1), v).view(groups, rows, share, depth))


@lru_cache(maxsize=8)
def _future(rows: int, dtype: torch.dtype) -> torch.Tensor:
    """[rows, rows]: minus infinity where a column comes after its row and is masked."""
    return torch.full((rows, rows), float("-inf"), dtype=dtype).triu(1)


def _spans(lengths: Sequence[int]) -> list[tuple[int, int]]:
    return list(pairwise(accumulate(lengths, initial=0)))


def _runs(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """(start, end, length) of the runs of sequences of one length."""
    runs: list[tuple[int, int, int]] = []
    for (start, end), length in zip(_spans(lengths), lengths, strict=True):
        if runs and runs[-1][2] == length:
            runs[-1] = (runs[-1][0], end, length)
        else:
            runs.append((start, end, length))
    return runs
