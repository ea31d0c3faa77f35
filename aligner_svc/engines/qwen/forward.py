"""One forward pass over any number of clips, through the modules and weights of qwen-asr.

The clips are concatenated without padding; matrix products take all rows at once, and only attention knows the ends of clips. A
clip's answer does not depend on the rest of its batch. The formulas are those of
qwen_asr.core.transformers_backend.modeling_qwen3_asr (0.0.6), without what an aligner never uses: the KV cache, the mask, and the
rows of the head that are not timestamps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from aligner_svc.engines.qwen import glue, layers
from aligner_svc.engines.qwen.attention import Attention, Fused, for_device
from aligner_svc.engines.qwen.checkpoint import Checkpoint
from aligner_svc.engines.qwen.devices.feed import Feed, Input
from aligner_svc.engines.qwen.devices.preparation import Prepared
from aligner_svc.engines.qwen.graphs import Cuda, Graphs, Record
from aligner_svc.engines.qwen.prompt import CHUNK_TOKENS
from aligner_svc.engines.qwen.timestamps import TimestampSlots

_CONVOLVED = {"cpu": 2, "cuda": 512}
"""Chunks that go through the convolutions at a time. On a CPU few enough for intermediate results to stay in its caches."""
_ROWS = 1024
"""Rows that go through a layer's products at a time on a CPU, to limit the memory of a long clip. A GPU takes all at once."""
_HEAD_ROWS = {"cpu": 256, "cuda": 4096}
"""Timestamps whose logits are held in float32 at a time. On a CPU few enough for their memory to be reused."""


class PackedAligner:
    """The model. Not thread-safe."""

    def __init__(self, checkpoint: Checkpoint, attention: Attention | None = None, *, fused: bool | None = None) -> None:
        """`attention`, `fused` layers: the fastest that work here, if not given; those that are not fused are merged on a GPU.

        Replaces layers of the checkpoint.
        """
        thinker = checkpoint.thinker
        self._encoder: Any = thinker.audio_tower
        self._decoder: Any = thinker.model
        weight = self._decoder.embed_tokens.weight
        self.device: torch.device = weight.device
        self.dtype: torch.dtype = weight.dtype
        self.feed = Feed(self.device, checkpoint.audio_id, checkpoint.timestamp_id)
        self._attention = attention or for_device(self.device, self.dtype)
        thinker.lm_head.float()  # 0.2 % of the work; in bf16 6 % of the slots tie at the top, and 2.9 % get another class
        merged = self.device.type != "cpu" if fused is None else not fused
        fused = layers.fused_work(self.device, self.dtype) if fused is None else fused
        if merged:
            layers.merge(self._encoder.layers, self._decoder.layers)
        layers.fit(thinker, fused=fused)
        self._merged = hasattr(self._decoder.layers[0].self_attn, layers.MERGED)
        self._glue = glue.for_device(self.device, self.dtype)
        self._head: Any = thinker.lm_head
        self._graphs: Graphs | None = None

    @torch.inference_mode()
    def record(self, clip: Callable[[float], Prepared], record: Record | None = None) -> None:
        """Record passes over small batches, if that is worth it: see Graphs.add. `record`: instead of a GPU's."""
        if record is None and self.device.type == "cuda" and isinstance(self._attention, Fused):  # others read lengths in Python
            record = Cuda(self.device)
        if record is not None:
            self._graphs = Graphs(self._plain_states, self.feed, self.dtype, record)
            self._graphs.add(clip)

    def __call__(self, batch: Sequence[Prepared]) -> list[TimestampSlots]:
        """Raises torch.OutOfMemoryError, or on a CPU RuntimeError, if memory does not suffice."""
        return self.answer(self.feed(batch))

    @torch.inference_mode()
    def answer(self, given: Input) -> list[TimestampSlots]:
        """For what `feed` returned, maybe on another thread. Raises as above."""
        classes, probabilities = [], []
        for part in self._states(given).split(_HEAD_ROWS[self.device.type]):
            rows = self._head(part)
            best, index = rows.max(-1)
            classes.append(index)
            probabilities.append((best - rows.logsumexp(-1)).exp())
        chosen = torch.cat(classes).cpu().split(given.counts)
        sure = torch.cat(probabilities).cpu().split(given.counts)
        return [TimestampSlots(index.numpy(), value.numpy()) for index, value in zip(chosen, sure, strict=True)]

    @torch.inference_mode()
    def logits(self, batch: Sequence[Prepared]) -> torch.Tensor:
        """[slots of all clips, classes], float32."""
        return self._head(self._states(self.feed(batch)))

    def _states(self, given: Input) -> torch.Tensor:
        """[slots of all clips, width], float32: what the head is given."""
        given.arrive()
        recorded = self._graphs(given) if self._graphs else None
        states = self._plain_states(given) if recorded is None else recorded
        return states[: sum(given.counts)]

    def _plain_states(self, given: Input) -> torch.Tensor:
        """With those of the padding."""
        hidden = self._decoder.embed_tokens(given.ids)
        hidden.index_copy_(0, given.audio, self._encode(given))
        return self._decode(hidden, given).float()

    def _encode(self, given: Input) -> torch.Tensor:
        """[audio tokens of all clips, width of the decoder]."""
        encoder = self._encoder
        hidden = self._convolve(given)
        attention = encoder.layers[0].self_attn
        count, depth = attention.num_heads, attention.head_dim
        if self._merged:
            for layer in encoder.layers:
                parts = self._merged_audio(layer, hidden, count)
                mixed = self._attention(*parts, given.windows, causal=False).flatten(1)
                self._transform_audio(layer, hidden, mixed)
            return encoder.proj2(encoder.proj1.gelu(encoder.ln_post(hidden)))
        heads = _Heads(hidden, count, count, depth)
        blocks = heads.blocks(hidden, self._slices(len(hidden)))
        for layer in encoder.layers:
            for block in blocks:
                self._project_audio(layer, block)
            mixed = self._attention(heads.query, heads.key, heads.value, given.windows, causal=False).flatten(1)
            for block in blocks:
                self._transform_audio(layer, block.hidden, mixed[block.rows])
        return torch.cat([encoder.proj2(encoder.proj1.gelu(encoder.ln_post(block.hidden))) for block in blocks])

    @staticmethod
    def _merged_audio(layer: Any, hidden: torch.Tensor, heads: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values [rows, heads, depth], parts of one product."""
        whole = layer.self_attn.qkv_proj(layer.self_attn_layer_norm(hidden))
        query, key, value = whole.unflatten(1, (3, heads, -1)).unbind(1)
        return query, key, value

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
        layer.self_attn.out_proj.add_to(hidden, mixed)
        layer.fc2.add_to(hidden, layer.fc1.gelu(layer.final_layer_norm(hidden)))

    def _convolve(self, given: Input) -> torch.Tensor:
        """The tokens of all clips in order, from chunks of 1 s through the convolutions."""
        encoder = self._encoder
        chunks, short = given.chunks, given.short
        position = encoder.positional_embedding.positional_embedding[:CHUNK_TOKENS].to(self.dtype)
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
        return torch.cat(convolved).flatten(0, 1).index_select(0, given.kept)

    def _decode(self, hidden: torch.Tensor, given: Input) -> torch.Tensor:
        """[slots, width]: the last hidden states of the timestamps."""
        decoder, lengths, slots = self._decoder, given.rows, given.slots
        cos, sin = (part.transpose(0, 1) for part in decoder.rotary_emb(hidden, given.positions.expand(3, 1, -1)))
        attention = decoder.layers[0].self_attn
        groups = attention.config.num_key_value_heads
        count, depth = groups * attention.num_key_value_groups, attention.head_dim
        if self._merged:
            for layer in decoder.layers:
                mixed = self._attention(*self._merged_text(layer, hidden, count, groups, cos, sin), lengths, causal=True).flatten(
                    1
                )
                if layer is decoder.layers[-1]:
                    hidden, mixed = hidden[slots], mixed[slots]  # see below
                self._transform_text(layer, hidden, mixed)
            return decoder.norm(hidden)
        heads = _Heads(hidden, count, groups, depth)
        blocks = heads.blocks(hidden, self._slices(len(hidden)))
        rotations = [glue.Rotation(cos[block.rows], sin[block.rows].chunk(2, -1)[0]) for block in blocks]
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

    def _merged_text(  # noqa: PLR0917 - what all layers share
        self, layer: Any, hidden: torch.Tensor, heads: int, groups: int, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values [rows, heads or groups, depth], parts of one product."""
        attention = layer.self_attn
        whole = attention.qkv_proj(layer.input_layernorm(hidden)).unflatten(1, (heads + 2 * groups, -1))
        turned = self._glue.rotate(whole[:, : heads + groups], attention.qk_norm, attention.q_norm.epsilon, cos, sin)
        return turned[:, :heads], turned[:, heads:], whole[:, heads + groups :]

    @staticmethod
    def _project_text(layer: Any, block: _Block, rotation: glue.Rotation) -> None:
        """The part of a layer before attention."""
        attention = layer.self_attn
        normal = layer.input_layernorm(block.hidden)
        rotation.of(attention.q_norm(attention.q_proj(normal).view_as(block.query)), out=block.query)
        rotation.of(attention.k_norm(attention.k_proj(normal).view_as(block.key)), out=block.key)
        block.value.copy_(attention.v_proj(normal).view_as(block.value))

    def _transform_text(self, layer: Any, hidden: torch.Tensor, mixed: torch.Tensor) -> None:
        """The part of a layer after attention; `hidden` [rows, width], in place."""
        mlp = layer.mlp
        layer.self_attn.o_proj.add_to(hidden, mixed)
        normal = layer.post_attention_layernorm(hidden)
        if self._merged:
            gated = self._glue.gate(mlp.gate_up_proj(normal))
        else:
            gated = mlp.gate_proj.silu(normal).mul_(mlp.up_proj(normal))
        mlp.down_proj.add_to(hidden, gated)

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
