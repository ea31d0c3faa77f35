"""How many floating point operations a batch needs, counted from the sizes in the checkpoint's config.

A multiplication and its addition count as two. Counted are the matrix products and convolutions that forward.py runs:
whole chunks with their padding, attention within its windows, half of the square in the decoder (a row attends to itself
and the rows before it), and behind the last layer's attention only the timestamps' rows. Not counted are operations bound
by memory traffic: norms, softmax, activations, rotations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from aligner_svc.engines.qwen.devices.preparation import Prepared
from aligner_svc.engines.qwen.prompt import CHUNK, CHUNK_TOKENS, chunks_of, tokens_after

_KERNEL = 3 * 3
_CONVOLUTIONS = 3


@dataclass(frozen=True, slots=True)
class Flops:
    """Of one batch, by part of the model."""

    convolutions: int
    encoder: int
    """Its linear layers, including those before and after its blocks."""
    encoder_attention: int
    decoder: int
    """Its linear layers."""
    decoder_attention: int
    head: int

    @property
    def linear(self) -> int:
        return self.encoder + self.decoder + self.head

    @property
    def total(self) -> int:
        return sum(astuple(self))


def count(config: Any, batch: Sequence[Prepared]) -> Flops:
    """`config`: the thinker's, `checkpoint.thinker.config`."""
    audio, text = config.audio_config, config.text_config
    frames = [item.frames for item in batch]
    tokens, rows, slots = sum(map(tokens_after, frames)), sum(item.rows for item in batch), sum(item.slots for item in batch)
    chunks = sum(map(chunks_of, frames))
    window = audio.n_window_infer // CHUNK * CHUNK_TOKENS

    convolutions, bins = _convolutions(audio.num_mel_bins, audio.downsample_hidden_size)
    into = chunks * CHUNK_TOKENS * bins * audio.downsample_hidden_size * audio.d_model
    block = 4 * audio.d_model**2 + 2 * audio.d_model * audio.encoder_ffn_dim
    out = audio.d_model**2 + audio.d_model * audio.output_dim
    windows = sum(_windowed(tokens_after(length), window) for length in frames)

    heads = text.num_attention_heads * text.head_dim
    mixed = text.hidden_size * (heads + 2 * text.num_key_value_heads * text.head_dim)  # queries, keys, values
    rest = heads * text.hidden_size + 3 * text.hidden_size * text.intermediate_size
    layers = text.num_hidden_layers
    pairs = sum(item.rows * (item.rows + 1) // 2 for item in batch)
    return Flops(
        convolutions=2 * chunks * convolutions,
        encoder=2 * (into + tokens * (audio.encoder_layers * block + out)),
        encoder_attention=2 * 2 * windows * audio.d_model * audio.encoder_layers,
        decoder=2 * (rows * (layers * mixed + (layers - 1) * rest) + slots * rest),
        decoder_attention=2 * 2 * pairs * heads * layers,
        head=2 * slots * text.hidden_size * config.classify_num,
    )


def _convolutions(bins: int, channels: int) -> tuple[int, int]:
    """Multiplications of one chunk, and the number of mel bins that remain."""
    total, length, inputs = 0, CHUNK, 1
    for _ in range(_CONVOLUTIONS):
        bins, length = (bins + 1) // 2, (length + 1) // 2
        total += bins * length * channels * inputs * _KERNEL
        inputs = channels
    return total, bins


def _windowed(tokens: int, window: int) -> int:
    """Pairs of a clip's audio tokens that attend to each other."""
    return tokens // window * window**2 + (tokens % window) ** 2
