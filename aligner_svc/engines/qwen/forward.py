"""One forward pass over any number of clips, through the modules and weights of qwen-asr.

The clips are concatenated without padding; matrix products take all rows at once, and only attention knows the ends of clips. A
clip's answer does not depend on the rest of its batch. The formulas are those of
qwen_asr.core.transformers_backend.modeling_qwen3_asr (0.0.6), without what an aligner never uses: the KV cache, the mask, and the
rows of the head that are not timestamps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from aligner_svc.engines.qwen import layers
from aligner_svc.engines.qwen.attention import Attention, for_device
from aligner_svc.engines.qwen.checkpoint import Checkpoint
from aligner_svc.engines.qwen.devices.preparation import Prepared
from aligner_svc.engines.qwen.prompt import CHUNK, CHUNK_TOKENS, chunks_of, tokens_after
from aligner_svc.engines.qwen.timestamps import TimestampSlots

_WINDOW = 8 * CHUNK_TOKENS  # audio tokens that attend to each other: 8 s
_CONVOLVED = {"cpu": 2, "cuda": 512}
"""Chunks that go through the convolutions at a time. On a CPU few enough for intermediate results to stay in its caches."""
_ROWS = 1024
"""Rows that go through a layer's products at a time on a CPU, to limit the memory of a long clip. A GPU takes all at once."""
_HEAD_ROWS = {"cpu": 256, "cuda": 4096}
"""Timestamps whose logits are held in float32 at a time. On a CPU few enough for their memory to be reused."""


class PackedAligner:
    """The model. Not thread-safe."""

    def __init__(self, checkpoint: Checkpoint, attention: Attention | None = None, *, fused: bool | None = None) -> None:
        """`attention`, `fused` layers: the fastest that work here, if not given. Replaces layers of the checkpoint."""
        thinker = checkpoint.thinker
        self._encoder: Any = thinker.audio_tower
        self._decoder: Any = thinker.model
        weight = self._decoder.embed_tokens.weight
        self.device: torch.device = weight.device
        self.dtype: torch.dtype = weight.dtype
        self._timestamp_id = checkpoint.timestamp_id
        self._audio_id = checkpoint.audio_id
        self._attention = attention or for_device(self.device, self.dtype)
        thinker.lm_head.float()  # 0.2 % of the work; in bf16 6 % of the slots tie at the top, and 2.9 % get another class
        layers.fit(thinker, fused=layers.fused_work(self.device, self.dtype) if fused is None else fused)
        self._head: Any = thinker.lm_head

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Prepared]) -> list[TimestampSlots]:
        """Raises torch.OutOfMemoryError, or on a CPU RuntimeError, if memory does not suffice."""
        classes, probabilities = [], []
        for part in self._states(batch).split(_HEAD_ROWS[self.device.type]):
            rows = self._head(part)
            best, index = rows.max(-1)
            classes.append(index)
            probabilities.append((best - rows.logsumexp(-1)).exp())
        counts = [item.slots for item in batch]
        chosen = torch.cat(classes).cpu().split(counts)
        sure = torch.cat(probabilities).cpu().split(counts)
        return [TimestampSlots(index.numpy(), value.numpy()) for index, value in zip(chosen, sure, strict=True)]

    @torch.inference_mode()
    def logits(self, batch: Sequence[Prepared]) -> torch.Tensor:
        """[slots of all clips, classes], float32."""
        return self._head(self._states(batch))

    def _states(self, batch: Sequence[Prepared]) -> torch.Tensor:
        """[slots of all clips, width], float32: what the head is given."""
        ids = np.concatenate([item.ids for item in batch])
        # Indices are found on the CPU: on the device this would wait for its queue.
        audio, slots = (self._upload(np.flatnonzero(ids == token)) for token in (self._audio_id, self._timestamp_id))
        hidden = self._decoder.embed_tokens(self._upload(ids))
        hidden.index_copy_(0, audio, self._encode([item.mel for item in batch]))
        return self._decode(hidden, [item.rows for item in batch], slots).float()

    def _upload(self, indices: npt.NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(indices).to(self.device, non_blocking=True)

    def _encode(self, mels: Sequence[torch.Tensor]) -> torch.Tensor:
        """[audio tokens of all clips, width of the decoder]."""
        encoder = self._encoder
        counts = [tokens_after(mel.shape[1]) for mel in mels]
        hidden = self._convolve(mels)
        lengths = [length for count in counts for length in windows(count)]
        attention = encoder.layers[0].self_attn
        heads = _Heads(hidden, attention.num_heads, attention.num_heads, attention.head_dim)
        blocks = heads.blocks(hidden, self._slices(len(hidden)))
        for layer in encoder.layers:
            for block in blocks:
                self._project_audio(layer, block)
            mixed = self._attention(heads.query, heads.key, heads.value, lengths, causal=False).flatten(1)
            for block in blocks:
                self._transform_audio(layer, block.hidden, mixed[block.rows])
        return torch.cat([encoder.proj2(encoder.proj1.gelu(encoder.ln_post(block.hidden))) for block in blocks])

    @staticmethod
    def _project_audio(layer: Any, block: _Block) -> None:
        """The part of a layer before attention."""
        attention = layer.self_attn
        normal = layer.self_attn_layer_norm(block.hidden)
        block.query.copy_(attention.q_proj(normal).view_as(block.query))
        block.key.copy_(attention.k_proj(normal).view_as(block.key))
        block.value.copy_(attention.v_proj(normal).view_as(block.value))

    @staticmethod
    def _transform_audio(layer: Any, hidden: torch.Tensor, mixed: torch.Tensor) -> None:
        """The part of a layer after attention; `hidden` [rows, width], in place."""
        hidden.add_(layer.self_attn.out_proj(mixed))
        hidden.add_(layer.fc2(layer.fc1.gelu(layer.final_layer_norm(hidden))))

    def _convolve(self, mels: Sequence[torch.Tensor]) -> torch.Tensor:
        """The tokens of all clips in order, from chunks of 1 s through the convolutions."""
        encoder = self._encoder
        # Cut after the copy: for 24 minutes of audio it takes a CPU thread 30 ms, during which a GPU would be idle.
        chunks = torch.cat([_chunks(mel.to(self.device, non_blocking=True)) for mel in mels])
        position = encoder.positional_embedding.positional_embedding[:CHUNK_TOKENS].to(self.dtype)
        short = _short_lengths(mels)
        convolved = []
        step = _CONVOLVED[self.device.type]
        for start in range(0, len(chunks), step):
            maps = chunks[start : start + step].unsqueeze(1).contiguous(memory_format=torch.channels_last)
            within = {index - start: length for index, length in short.items() if start <= index < start + step}
            for convolution in (encoder.conv2d1, encoder.conv2d2, encoder.conv2d3):
                maps = convolution(maps)
                for index, length in within.items():
                    within[index] = (length + 1) // 2
                    maps[index, ..., within[index] :] = 0
            many, channels, bins, frames = maps.shape
            convolved.append(encoder.conv_out(maps.permute(0, 3, 1, 2).reshape(many, frames, channels * bins)) + position)
        kept = self._upload(np.flatnonzero(np.concatenate([_kept(mel.shape[1]) for mel in mels])))
        return torch.cat(convolved).flatten(0, 1).index_select(0, kept)

    def _decode(self, hidden: torch.Tensor, lengths: Sequence[int], slots: torch.Tensor) -> torch.Tensor:
        """[slots, width]: the last hidden states of the timestamps."""
        decoder = self._decoder
        positions = self._upload(np.concatenate([np.arange(length) for length in lengths]))
        cos, sin = (part.transpose(0, 1) for part in decoder.rotary_emb(hidden, positions.expand(3, 1, -1)))
        attention = decoder.layers[0].self_attn
        groups = attention.config.num_key_value_heads
        heads = _Heads(hidden, groups * attention.num_key_value_groups, groups, attention.head_dim)
        blocks = heads.blocks(hidden, self._slices(len(hidden)))
        rotations = [_Rotation(cos[block.rows], sin[block.rows].chunk(2, -1)[0]) for block in blocks]
        for layer in decoder.layers:
            for block, rotation in zip(blocks, rotations, strict=True):
                self._project_text(layer, block, rotation)
            mixed = self._attention(heads.query, heads.key, heads.value, lengths, causal=True).flatten(1)
            if layer is decoder.layers[-1]:
                break
            for block in blocks:
                self._transform_text(layer, block.hidden, mixed[block.rows])
        # After the last attention no row depends on another: only the timestamps are needed.
        hidden, mixed = hidden[slots], mixed[slots]
        for rows in self._slices(len(hidden)):
            self._transform_text(layer, hidden[rows], mixed[rows])
        return decoder.norm(hidden)

    @staticmethod
    def _project_text(layer: Any, block: _Block, rotation: _Rotation) -> None:
        """The part of a layer before attention."""
        attention = layer.self_attn
        normal = layer.input_layernorm(block.hidden)
        rotation.of(attention.q_norm(attention.q_proj(normal).view_as(block.query)), out=block.query)
        rotation.of(attention.k_norm(attention.k_proj(normal).view_as(block.key)), out=block.key)
        block.value.copy_(attention.v_proj(normal).view_as(block.value))

    @staticmethod
    def _transform_text(layer: Any, hidden: torch.Tensor, mixed: torch.Tensor) -> None:
        """The part of a layer after attention; `hidden` [rows, width], in place."""
        mlp = layer.mlp
        hidden.add_(layer.self_attn.o_proj(mixed))
        normal = layer.post_attention_layernorm(hidden)
        hidden.add_(mlp.down_proj(mlp.gate_proj.silu(normal).mul_(mlp.up_proj(normal))))

    def _slices(self, rows: int) -> list[slice]:
        """The rows that go through a layer's products at a time."""
        count = max(1, -(-rows // _ROWS)) if self.device.type == "cpu" else 1
        step = max(1, -(-rows // count))  # even slices: the last should not be a few rows
        return [slice(start, start + step) for start in range(0, rows, step)]


class _Block(NamedTuple):
    """Some rows, with their views of the tensors that all layers read and write."""

    rows: slice
    hidden: torch.Tensor
    """[rows, width]."""
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    """[rows, heads, depth], as in _Heads."""


class _Rotation(NamedTuple):
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


class _Heads:
    """Queries, keys and values of all rows, [rows, heads, depth], in memory shared by all layers.

    Keys and values are contiguous for each head, the fastest layout for products over all rows of a head.
    """

    def __init__(self, hidden: torch.Tensor, heads: int, groups: int, depth: int) -> None:
        rows = len(hidden)
        self.query = hidden.new_empty((rows, heads, depth))
        self.key, self.value = (hidden.new_empty((groups, rows, depth)).transpose(0, 1) for _ in range(2))

    def blocks(self, hidden: torch.Tensor, slices: Sequence[slice]) -> list[_Block]:
        """Views, made once for all layers: on a GPU making them in every layer would take longer than the computation."""
        return [_Block(rows, hidden[rows], self.query[rows], self.key[rows], self.value[rows]) for rows in slices]


def _chunks(mel: torch.Tensor) -> torch.Tensor:
    """[mels, frames] to [chunks, mels, CHUNK], the last one padded with zeros."""
    missing = -mel.shape[1] % CHUNK
    return functional.pad(mel, (0, missing)).unflatten(1, (-1, CHUNK)).transpose(0, 1)


def _kept(frames: int) -> npt.NDArray[np.bool_]:
    """Mask of the tokens of a clip's chunks without those of the last chunk's padding."""
    return np.arange(chunks_of(frames) * CHUNK_TOKENS) < tokens_after(frames)


def _short_lengths(mels: Sequence[torch.Tensor]) -> dict[int, int]:
    """Index of chunk -> frames, for the clips under a second.

    The model was trained with the last chunk of a longer clip padded with zeros before the convolutions, but with a single short
    chunk not padded: here its padding must be zero after each convolution too.
    """
    short: dict[int, int] = {}
    at = 0
    for mel in mels:
        frames = mel.shape[1]
        if frames < CHUNK:
            short[at] = frames
        at += chunks_of(frames)
    return short


def windows(count: int) -> list[int]:
    """Lengths of the attention windows of a clip with `count` audio tokens."""
    return [_WINDOW] * (count // _WINDOW) + ([count % _WINDOW] if count % _WINDOW else [])
