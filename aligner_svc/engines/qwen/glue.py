"""What is computed between the merged products, on a GPU: elementwise, bound by memory, and many launches.

Where there is a compiler, torch.compile makes one kernel of each of these functions; elsewhere they run as they are written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from torch.utils._triton import has_triton

log = logging.getLogger(__name__)


class Rotation(NamedTuple):
    """Rotary position embedding of some rows; both halves of its depth are the same."""

    cos: torch.Tensor
    """[rows, 1, depth]."""
    sin: torch.Tensor
    """[rows, 1, depth / 2]."""

    def of(self, heads: torch.Tensor, *, out: torch.Tensor) -> None:
        """Both [rows, heads, depth]."""
        first, second = heads.chunk(2, -1)
        left, right = torch.mul(heads, self.cos, out=out).chunk(2, -1)
        left.addcmul_(second, self.sin, value=-1)
        right.addcmul_(first, self.sin)


def rotate(heads: torch.Tensor, weight: torch.Tensor, epsilon: float, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Norm each of [rows, heads, depth], weigh it by a row of `weight` [heads, depth], turn it; `cos`, `sin` [rows, 1, depth]."""
    normal = functional.rms_norm(heads, heads.shape[-1:], None, epsilon).mul_(weight)
    turned = torch.empty_like(normal)
    Rotation(cos, sin.chunk(2, -1)[0]).of(normal, out=turned)
    return turned


def gate(both: torch.Tensor) -> torch.Tensor:
    """[rows, gate and up] to [rows, width]: SiLU of the first half times the second."""
    first, second = both.chunk(2, -1)
    return functional.silu(first).mul_(second)


def _rotate_whole(
    heads: torch.Tensor, weight: torch.Tensor, epsilon: float, cos: torch.Tensor, sin: torch.Tensor
) -> torch.Tensor:
    """As `rotate`, without memory that is written in parts, which a compiler cannot put into one kernel."""
    wide = heads.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    normal = (wide * scale).to(heads.dtype) * weight
    first, second = normal.chunk(2, -1)
    return normal * cos + torch.cat((-second, first), -1) * sin


def _gate_whole(both: torch.Tensor) -> torch.Tensor:
    first, second = both.chunk(2, -1)
    return functional.silu(first) * second


class Glue(NamedTuple):
    """`rotate` and `gate`, as they are or compiled."""

    rotate: Callable[[torch.Tensor, torch.Tensor, float, torch.Tensor, torch.Tensor], torch.Tensor] = rotate
    gate: Callable[[torch.Tensor], torch.Tensor] = gate


def compiled() -> Glue:
    make: Any = torch.compile
    return Glue(make(_rotate_whole, dynamic=True), make(_gate_whole, dynamic=True))


@torch.inference_mode()
def for_device(device: torch.device, dtype: torch.dtype) -> Glue:
    """Compiled on a GPU that has a compiler. Tried once, at start, so that no call fails."""
    if device.type != "cuda" or not has_triton():
        return Glue()
    made = compiled()
    try:
        for rows in (8, 24):  # the second makes the number of rows variable
            heads = torch.ones((rows, 4, 128), device=device, dtype=dtype)
            made.rotate(heads[:, :3], heads[0, :3], 1e-6, heads[:, :1], heads[:, :1])
            made.gate(heads.flatten(1))
    except Exception as error:
        log.warning("torch.compile is not used: %s", (str(error).strip().splitlines() or [type(error).__name__])[0][:200])
        return Glue()
    return made
