"""One forward pass over any number of clips, through the modules and weights of qwen-asr.

Nothing is padded that the model sees: the clips lie one after the other, the matrix products take all
rows at once, and only attention knows where a clip ends. What a clip gets is what it would get alone.
The formulas are those of qwen_asr.core.transformers_backend.modeling_qwen3_asr (0.0.6); what is left
out of them is what an aligner never uses: the KV cache, the rows that are no timestamp, a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from aligner_svc.engines.qwen.attention import Attention, for_device
from aligner_svc.engines.qwen.checkpoint import Checkpoint
from aligner_svc.engines.qwen.preparation import CHUNK, CHUNK_TOKENS, Prepared, tokens_after

_WINDOW = 8 * CHUNK_TOKENS
"""Audio tokens that see each other: 8 s."""
_CONVOLVED = 4
"""Chunks that go through the convolutions at a time on a CPU: what is between them then stays in its caches."""
_CONVOLVED_DEVICE = 512
_HEAD_ROWS = 1024
"""Timestamps whose 5,000 logits are held at a time."""


class Slots(NamedTuple):
    """What the model says of one clip's timestamps: the likeliest class of each, and its probability."""

    classes: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]


class PackedAligner:
    """The model. One thread at a time."""

    def __init__(self, checkpoint: Checkpoint, attention: Attention | None = None) -> None:
        thinker = checkpoint.thinker
        self._encoder: Any = thinker.audio_tower
        self._decoder: Any = thinker.model
        self._head: Any = thinker.lm_head
        weight = self._head.weight
        self.device: torch.device = weight.device
        self.dtype: torch.dtype = weight.dtype
        self._timestamp_id = checkpoint.timestamp_id
        self._audio_id = checkpoint.audio_id
        self._attention = attention or for_device(self.device, self.dtype)
        for convolution in (self._encoder.conv2d1, self._encoder.conv2d2, self._encoder.conv2d3):
            convolution.to(memory_format=torch.channels_last)  # what the kernels of both kinds of device are quickest with

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Prepared]) -> list[Slots]:
        """Raises torch.OutOfMemoryError, or on a CPU RuntimeError, where memory does not suffice."""
        logits = self.logits(batch)
        classes, probabilities = [], []
        for rows in logits.split(_HEAD_ROWS):
            best, index = rows.float().max(-1)
            classes.append(index)
            probabilities.append((best - rows.float().logsumexp(-1)).exp())
        counts = [item.slots for item in batch]
        chosen = torch.cat(classes).cpu().split(counts)
        sure = torch.cat(probabilities).cpu().split(counts)
        return [Slots(index.numpy(), value.numpy()) for index, value in zip(chosen, sure, strict=True)]

    @torch.inference_mode()
    def logits(self, batch: Sequence[Prepared]) -> torch.Tensor:
        """[slots of all clips, classes], in the model's precision."""
        ids = torch.from_numpy(np.concatenate([item.ids for item in batch])).to(self.device, non_blocking=True)
        hidden = self._decoder.embed_tokens(ids)
        hidden[ids == self._audio_id] = self._encode([item.mel for item in batch])
        rows = (ids == self._timestamp_id).nonzero().squeeze(1)
        return self._head(self._decode(hidden, [item.rows for item in batch], rows))

    # ---- audio

    def _encode(self, mels: Sequence[torch.Tensor]) -> torch.Tensor:
        """[audio tokens of all clips, width of the decoder]."""
        encoder = self._encoder
        counts = [tokens_after(mel.shape[1]) for mel in mels]
        hidden = self._convolve(mels)
        windows = [length for count in counts for length in _windows(count)]
        for layer in encoder.layers:
            hidden = hidden + self._attend_audio(layer.self_attn, layer.self_attn_layer_norm(hidden), windows)
            hidden = hidden + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(hidden))))
        return encoder.proj2(encoder.act(encoder.proj1(encoder.ln_post(hidden))))

    def _convolve(self, mels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Chunks of a second through the convolutions; the tokens of all clips in order."""
        encoder = self._encoder
        chunks = torch.cat([_chunks(mel.to(self.device, non_blocking=True)) for mel in mels])
        position = encoder.positional_embedding.positional_embedding[:CHUNK_TOKENS].to(self.dtype)
        short = _short_lengths(mels)
        convolved = []
        step = _CONVOLVED if self.device.type == "cpu" else _CONVOLVED_DEVICE
        for start in range(0, len(chunks), step):
            maps = chunks[start : start + step].unsqueeze(1).contiguous(memory_format=torch.channels_last)
            within = {index - start: length for index, length in short.items() if start <= index < start + step}
            for convolution in (encoder.conv2d1, encoder.conv2d2, encoder.conv2d3):
                maps = functional.gelu(convolution(maps))
                for index, length in within.items():
                    within[index] = (length + 1) // 2
                    maps[index, ..., within[index] :] = 0
            many, channels, bins, frames = maps.shape
            convolved.append(encoder.conv_out(maps.permute(0, 3, 1, 2).reshape(many, frames, channels * bins)) + position)
        kept = torch.cat([_kept(mel.shape[1]) for mel in mels]).to(self.device, non_blocking=True)
        return torch.cat(convolved).flatten(0, 1)[kept]

    def _attend_audio(self, attention: Any, hidden: torch.Tensor, windows: Sequence[int]) -> torch.Tensor:
        shape = (len(hidden), attention.num_heads, attention.head_dim)
        query, key, value = (
            projection(hidden).view(shape) for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        return attention.out_proj(self._attention(query, key, value, windows, causal=False).flatten(1))

    # ---- text

    def _decode(self, hidden: torch.Tensor, lengths: Sequence[int], rows: torch.Tensor) -> torch.Tensor:
        """[rows, width]: the last hidden states of the timestamps alone."""
        decoder = self._decoder
        positions = torch.cat([torch.arange(length) for length in lengths]).to(self.device, non_blocking=True)
        cos, sin = (part.transpose(0, 1) for part in decoder.rotary_emb(hidden, positions.expand(3, 1, -1)))
        last = len(decoder.layers) - 1
        for index, layer in enumerate(decoder.layers):
            mixed = self._attend_text(layer.self_attn, layer.input_layernorm(hidden), cos, sin, lengths)
            if index == last:  # no later row looks at the others any more
                hidden, mixed = hidden[rows], mixed[rows]
            hidden = hidden + layer.self_attn.o_proj(mixed)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return decoder.norm(hidden)

    def _attend_text(
        self, attention: Any, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, lengths: Sequence[int]
    ) -> torch.Tensor:
        shape = (len(hidden), -1, attention.head_dim)
        query = _rotate(attention.q_norm(attention.q_proj(hidden).view(shape)), cos, sin)
        key = _rotate(attention.k_norm(attention.k_proj(hidden).view(shape)), cos, sin)
        value = attention.v_proj(hidden).view(shape)
        return self._attention(query, key, value, lengths, causal=True).flatten(1)


def _rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding; `heads` [rows, heads, depth], `cos` and `sin` [rows, 1, depth]."""
    first, second = heads.chunk(2, -1)
    return heads * cos + torch.cat((-second, first), -1) * sin


def _chunks(mel: torch.Tensor) -> torch.Tensor:
    """[mels, frames] to [chunks, mels, CHUNK], the last one filled up with zeros."""
    missing = -mel.shape[1] % CHUNK
    return functional.pad(mel, (0, missing)).unflatten(1, (-1, CHUNK)).transpose(0, 1)


def _kept(frames: int) -> torch.Tensor:
    """Which tokens of a clip's chunks are its own: all but those of the last chunk's filling."""
    chunks = -(-frames // CHUNK)
    return torch.arange(chunks * CHUNK_TOKENS) < tokens_after(frames)


def _short_lengths(mels: Sequence[torch.Tensor]) -> dict[int, int]:
    """Chunk -> frames, for the clips under a second.

    A longer clip's last chunk is filled up with zeros before the convolutions, and the model was trained so;
    a clip that is one short chunk alone is not, and what follows it must be silent after each of them too.
    """
    short: dict[int, int] = {}
    at = 0
    for mel in mels:
        frames = mel.shape[1]
        if frames < CHUNK:
            short[at] = frames
        at += -(-frames // CHUNK)
    return short


def _windows(count: int) -> list[int]:
    """Lengths of the stretches of a clip's audio tokens within which attention stays."""
    return [_WINDOW] * (count // _WINDOW) + ([count % _WINDOW] if count % _WINDOW else [])
