"""What a batch needs on the device, and how it gets there: two copies, whatever the number of clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from aligner_svc.engines.qwen.attention import Sequences
from aligner_svc.engines.qwen.devices.preparation import Prepared, side_by_side
from aligner_svc.engines.qwen.prompt import CHUNK, CHUNK_TOKENS, tokens_after

_WINDOW = 8 * CHUNK_TOKENS  # audio tokens that attend to each other: 8 s


class Input(NamedTuple):
    """A batch on the device."""

    chunks: torch.Tensor
    short: dict[int, int]
    """Index of chunk -> frames, of clips under a second."""
    ids: torch.Tensor
    positions: torch.Tensor
    audio: torch.Tensor
    """Rows that are audio tokens."""
    slots: torch.Tensor
    """Rows that are timestamps."""
    kept: torch.Tensor
    """Tokens of the chunks that are not of padding."""
    windows: Sequences
    rows: Sequences
    counts: Sequence[int]
    """Timestamps of each clip."""
    copied: torch.cuda.Event | None
    """After its copies; None on a CPU."""

    def arrive(self) -> None:
        """Have what the current stream is given next wait for the copies."""
        if self.copied is not None:
            stream = torch.cuda.current_stream(self.chunks.device)
            stream.wait_event(self.copied)
            self.chunks.record_stream(stream)
            self.ids.record_stream(stream)  # its memory has all the others


class Feed:
    """Copies batches. On a GPU from pinned memory, on a stream of its own, while another batch is computed. Thread-safe."""

    def __init__(self, device: torch.device, audio_id: int, timestamp_id: int) -> None:
        self._device = device
        self._audio_id = audio_id
        self._timestamp_id = timestamp_id
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" else None

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Prepared]) -> Input:
        """On the device, in two copies, which only `Input.arrive` waits for.

        Indices are found on the CPU: no operation has to be awaited.
        """
        tokens = [tokens_after(item.frames) for item in batch]
        ids = np.concatenate([item.ids for item in batch]).astype(np.int64)
        positions = np.concatenate([np.arange(item.rows) for item in batch])
        chosen = [np.flatnonzero(mask) for mask in (ids == self._audio_id, ids == self._timestamp_id, _kept(batch))]
        lengths = [length for count in tokens for length in windows(count)], [item.rows for item in batch]
        ends = [np.cumsum([0, *some], dtype=np.int32) for some in lengths]
        packed = _in_one(ids, positions, *chosen, *ends, pinned=self._copying is not None)
        with torch.cuda.stream(self._copying):  # of nothing on a CPU
            chunks = side_by_side(batch).to(self._device, non_blocking=True)
            whole = packed.to(self._device, non_blocking=True)
            copied = None if self._copying is None else self._copying.record_event()
        ids_at, positions_at, *chosen_at = whole[: len(packed) - _words(ends)].split([len(ids), len(ids), *map(len, chosen)])
        ends_at = whole[len(packed) - _words(ends) :].view(torch.int32)[: sum(map(len, ends))].split([len(some) for some in ends])
        audio, slots, kept = chosen_at
        encoder, decoder = (Sequences.of(some, at) for some, at in zip(lengths, ends_at, strict=True))
        counts = [item.slots for item in batch]
        return Input(chunks, _short_lengths(batch), ids_at, positions_at, audio, slots, kept, encoder, decoder, counts, copied)


def _in_one(*parts: npt.NDArray[Any], pinned: bool) -> torch.Tensor:
    """Arrays of int64, then of int32, one after the other in one of int64, for a single copy."""
    wide = sum(len(part) for part in parts if part.dtype == np.int64)
    narrow = [part for part in parts if part.dtype == np.int32]
    whole = torch.empty(wide + _words(narrow), dtype=torch.int64, pin_memory=pinned)
    np.concatenate([part for part in parts if part.dtype == np.int64], out=whole[:wide].numpy())
    np.concatenate(narrow, out=whole[wide:].numpy().view(np.int32)[: sum(map(len, narrow))])
    return whole


def _words(narrow: Sequence[npt.NDArray[Any]]) -> int:
    """Numbers of 64 bits that hold these of 32."""
    return (sum(map(len, narrow)) + 1) // 2


def _kept(batch: Sequence[Prepared]) -> npt.NDArray[np.bool_]:
    """Mask of the tokens of the clips' chunks without those of the last chunks' padding."""
    return np.concatenate([np.arange(len(item.chunks) * CHUNK_TOKENS) < tokens_after(item.frames) for item in batch])


def _short_lengths(batch: Sequence[Prepared]) -> dict[int, int]:
    """Index of chunk -> frames, for the clips under a second.

    The model was trained with the last chunk of a longer clip padded with zeros before the convolutions, but with a single short
    chunk not padded: here its padding must be zero after each convolution too.
    """
    short: dict[int, int] = {}
    at = 0
    for item in batch:
        if item.frames < CHUNK:
            short[at] = item.frames
        at += len(item.chunks)
    return short


def windows(count: int) -> list[int]:
    """Lengths of the attention windows of a clip with `count` audio tokens."""
    return [_WINDOW] * (count // _WINDOW) + ([count % _WINDOW] if count % _WINDOW else [])
