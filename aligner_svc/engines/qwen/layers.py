"""The model's layers, each fused with the activation that follows it.

On a CPU, PyTorch passes oneDNN the weights in the layout of the checkpoint; oneDNN reorders them for its kernels at every call,
and the activation takes another pass over memory. Here the weights are reordered once, and the activation is applied while the
result is in the caches. These are the kernels `torch.compile` calls for frozen weights; they need no compiler. They could add
and multiply as well, but slower than a second pass (a product of 228 x 3072: 1.70 ms, 1.53 in two).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from aligner_svc.engines.qwen.memory import drop_pages

log = logging.getLogger(__name__)


class Linear(nn.Module):
    """A linear layer, then its activation. Any device, any precision."""

    def __init__(self, module: nn.Linear) -> None:
        super().__init__()
        self._weight: torch.Tensor = module.weight
        self._bias: torch.Tensor | None = module.bias

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[rows, inputs] to [rows, outputs]."""
        return functional.linear(rows, self._weight, self._bias)

    def add_to(self, sums: torch.Tensor, rows: torch.Tensor) -> None:
        """Add the outputs of `rows` to `sums` [rows, outputs]; without a bias within the product."""
        if self._bias is None:
            torch.addmm(sums, rows, self._weight.t(), out=sums)
        else:
            sums.add_(self(rows))

    def gelu(self, rows: torch.Tensor) -> torch.Tensor:
        return functional.gelu(self(rows))

    def silu(self, rows: torch.Tensor) -> torch.Tensor:
        return functional.silu(self(rows), inplace=True)


class FusedLinear(Linear):
    """The same in one kernel of oneDNN, with a copy of the weights in its layout."""

    def __init__(self, module: nn.Linear) -> None:
        nn.Module.__init__(self)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(module.weight.detach())  # noqa: SLF001 - these have no public names
        self._bias = module.bias

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self._then(rows, "none")

    def add_to(self, sums: torch.Tensor, rows: torch.Tensor) -> None:
        sums.add_(self(rows))

    def gelu(self, rows: torch.Tensor) -> torch.Tensor:
        return self._then(rows, "gelu", "none")

    def silu(self, rows: torch.Tensor) -> torch.Tensor:
        return self._then(rows, "swish")

    def _then(self, rows: torch.Tensor, name: str, approximation: str = "") -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, name, [], approximation)  # noqa: SLF001
        return out


class Convolution(nn.Module):
    """A convolution, then GELU. Any device, any precision."""

    def __init__(self, module: nn.Conv2d) -> None:
        super().__init__()
        plain: Any = module
        self._plain = plain.to(memory_format=torch.channels_last)  # the fastest layout on CPU and GPU

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[chunks, channels, bins, frames], channels last."""
        return functional.gelu(self._plain(maps))


class FusedConvolution(Convolution):
    """The same in one kernel of oneDNN, for maps of one size, which determines the best layout of the weights."""

    def __init__(self, module: nn.Conv2d) -> None:
        nn.Module.__init__(self)
        assert not isinstance(module.padding, str)
        self._how = (list(module.padding), list(module.stride), list(module.dilation), module.groups)
        self._weight = module.weight.detach().contiguous(memory_format=torch.channels_last)
        self._bias = module.bias

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """See Convolution. The first call fixes the size of all maps."""
        if not self._weight.is_mkldnn:
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(self._weight, *self._how, list(maps.shape))  # noqa: SLF001
        out: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(  # noqa: SLF001
            maps, self._weight, self._bias, *self._how, "gelu", [], "none"
        )
        return out


class RMSNorm(nn.Module):
    """Rows divided by the root of their mean square, times a weight for each column. Any device, any precision."""

    def __init__(self, weight: torch.Tensor, epsilon: float) -> None:
        """`weight` [width]."""
        super().__init__()
        self._weight = weight
        self.epsilon = epsilon

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[..., width], in one kernel on a GPU; qwen-asr's module takes seven."""
        return functional.rms_norm(rows, self._weight.shape, self._weight, self.epsilon)


class FusedRMSNorm(RMSNorm):
    """The same in three kernels on a CPU, where PyTorch has seven and float32 copies between them."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """See RMSNorm. `rows` contiguous. In half precision rounded before and after the weight, as in qwen-asr."""
        flat = rows.view(1, -1, rows.shape[-1])
        squares = torch.linalg.vector_norm(flat[0], dim=-1, dtype=torch.float32).square_().div_(flat.shape[-1])
        # The only kernel that divides each row by its own number in float32: rows are treated as channels of known variance.
        scaled = functional.batch_norm(flat, torch.zeros_like(squares), squares, eps=self.epsilon)
        return scaled.view_as(rows).mul_(self._weight)


MERGED = "qkv_proj"
"""The attribute of a layer's attention by which a model with merged products is known."""


def merge(audio: Iterable[Any], text: Iterable[Any]) -> None:
    """Make one product of those that take the same rows: queries, keys and values, gate and up. For plain layers; idempotent.

    A GPU launches a third as many, and fills itself with fewer rows. On a CPU the parts would have to be copied apart.
    """
    for layer in (*audio, *text):
        attention = layer.self_attn
        if isinstance(getattr(attention, "q_proj", None), nn.Linear):
            setattr(attention, MERGED, _merged(attention, "q_proj", "k_proj", "v_proj"))
    for layer in text:
        attention, mlp = layer.self_attn, layer.mlp
        if isinstance(getattr(mlp, "gate_proj", None), nn.Linear):
            mlp.gate_up_proj = _merged(mlp, "gate_proj", "up_proj")
            groups = attention.config.num_key_value_heads
            weights = (attention.q_norm.weight, groups * attention.num_key_value_groups), (attention.k_norm.weight, groups)
            attention.qk_norm = torch.cat([weight.detach().expand(count, -1) for weight, count in weights])  # a row a head


def _merged(parent: nn.Module, *names: str) -> nn.Linear:
    """Take these linear layers out of `parent`, and return one that does what they did, side by side."""
    parts = [parent.get_submodule(name) for name in names]
    weight = torch.cat([cast("torch.Tensor", part.weight) for part in parts]).detach()
    whole = nn.Linear(weight.shape[1], weight.shape[0], bias=parts[0].bias is not None, device="meta")
    whole.weight = nn.Parameter(weight, requires_grad=False)
    if parts[0].bias is not None:
        biases = [torch.zeros_like(weight[: len(part.weight), 0]) if part.bias is None else part.bias for part in parts]
        whole.bias = nn.Parameter(torch.cat(cast("list[torch.Tensor]", biases)).detach(), requires_grad=False)
    for name in names:
        delattr(parent, name)
    return whole


def fit(model: nn.Module, *, fused: bool) -> None:
    """Replace torch's and qwen-asr's layers by this module's everywhere in `model`. Idempotent.

    One at a time, dropping the original weights of each fused linear layer, so that there is never a second copy of all weights.
    """
    linear, convolution, norm = (FusedLinear, FusedConvolution, FusedRMSNorm) if fused else (Linear, Convolution, RMSNorm)
    held = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    uses = Counter(tensor.data_ptr() for _, tensor in held)
    for parent in [module for module in model.modules() if not isinstance(module, Linear | Convolution | RMSNorm)]:
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                setattr(parent, name, linear(child))
                if fused and uses[child.weight.data_ptr()] == 1:
                    drop_pages(child.weight)
            elif isinstance(child, nn.Conv2d):
                setattr(parent, name, convolution(child))
            elif hasattr(child, "variance_epsilon"):  # qwen-asr's RMS norm, whose class has no public name
                setattr(parent, name, norm(cast("torch.Tensor", child.weight), cast("float", child.variance_epsilon)))


def fused_work(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this PyTorch's oneDNN has these kernels for this machine. Tried once, at start, so that no call fails."""
    if device.type != "cpu":
        return False
    probe = torch.zeros((16, 16), dtype=dtype)
    try:
        linear = FusedLinear(nn.Linear(16, 16, dtype=dtype).requires_grad_(False))
        linear(linear.silu(linear.gelu(probe)))
        FusedConvolution(nn.Conv2d(1, 16, 3, dtype=dtype).requires_grad_(False))(probe[None, None])
        FusedRMSNorm(probe[0], 1e-6)(probe)
    except (AttributeError, RuntimeError) as error:
        log.warning("fused layers are not used: %s", error)
        return False
    return True
