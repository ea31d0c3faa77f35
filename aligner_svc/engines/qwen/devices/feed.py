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
_CLIPS = 8  # of a batch that is padded


class PassSize(NamedTuple):
    """Sizes to which small batches are padded, so that one recorded pass serves them all."""

    chunks: int

    @property
    def tokens(self) -> int:
        return self.chunks * CHUNK_TOKENS

    @property
    def rows(self) -> int:
        """Twice the audio's: a fast speaker has some 12 rows of text a second."""
        return 2 * self.tokens + 16

    @property
    def slots(self) -> int:
        return self.rows // 3

    @property
    def windows(self) -> int:
        """Those of the clips, which may each have one more than their length needs, and those of the padding."""
        return 2 * (self.tokens // _WINDOW) + _CLIPS + 2

    def holds(self, batch: Sequence[Prepared]) -> bool:
        """No clip under a second: where its padding begins is no number on the device."""
        return (
            len(batch) <= _CLIPS
            and all(item.frames >= CHUNK for item in batch)
            and sum(len(item.chunks) for item in batch) <= self.chunks
            and sum(item.rows for item in batch) < self.rows  # the last is for what has no place
            and sum(item.slots for item in batch) <= self.slots
        )


class BatchParts(NamedTuple):
    """What a batch consists of."""

    sizes: Sequence[int]
    """Of the five arrays of int64 and the two of int32 of `Input.whole`."""
    windows: Sequence[int]
    rows: Sequence[int]
    counts: Sequence[int]
    short: dict[int, int]
    bucket: PassSize | None


class Input(NamedTuple):
    """A batch on the device."""

    parts: BatchParts
    chunks: torch.Tensor
    whole: torch.Tensor
    """All numbers below."""
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

    @classmethod
    def of(cls, parts: BatchParts, chunks: torch.Tensor, whole: torch.Tensor, copied: torch.cuda.Event | None = None) -> Input:
        """`whole`: what `_in_one` made of the arrays of `parts`."""
        *wide, windows, rows = parts.sizes
        ids, positions, audio, slots, kept = whole[: sum(wide)].split(wide)
        window_ends, row_ends = whole[sum(wide) :].view(torch.int32)[: windows + rows].split([windows, rows])
        longest = (_WINDOW, parts.bucket.rows) if parts.bucket else (None, None)
        encoder, decoder = Sequences.of(parts.windows, window_ends, longest[0]), Sequences.of(parts.rows, row_ends, longest[1])
        return cls(
            parts, chunks, whole, parts.short, ids, positions, audio, slots, kept, encoder, decoder, parts.counts, copied
        )  # fmt: skip

    def arrive(self) -> None:
        """Have what the current stream is given next wait for the copies."""
        if self.copied is not None:
            stream = torch.cuda.current_stream(self.chunks.device)
            stream.wait_event(self.copied)
            self.chunks.record_stream(stream)
            self.whole.record_stream(stream)


class Feed:
    """Copies batches. On a GPU from pinned memory, on a stream of its own, while another batch is computed. Thread-safe."""

    def __init__(self, device: torch.device, audio_id: int, timestamp_id: int) -> None:
        self._device = device
        self._audio_id = audio_id
        self._timestamp_id = timestamp_id
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.buckets: list[PassSize] = []
        """Those with a recorded pass, the smallest first."""

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Prepared], bucket: PassSize | None = None) -> Input:
        """On the device, in two copies, which only `Input.arrive` waits for.

        Padded to the `bucket`, or to the first of `buckets` that holds it. Indices are found on the CPU: no operation is awaited.
        """
        bucket = bucket or next((one for one in self.buckets if one.holds(batch)), None)
        ids = np.concatenate([item.ids for item in batch]).astype(np.int64)
        positions = np.concatenate([np.arange(item.rows) for item in batch])
        audio, slots, kept = (np.flatnonzero(mask) for mask in (ids == self._audio_id, ids == self._timestamp_id, _kept(batch)))
        lengths = [length for item in batch for length in windows(tokens_after(item.frames))], [item.rows for item in batch]
        if bucket:
            lengths[0].extend(windows(bucket.tokens - len(kept)))
            lengths[1].append(bucket.rows - len(ids))
            for some, count in zip(lengths, (bucket.windows, _CLIPS + 1), strict=True):
                some.extend([0] * (count - len(some)))
            ids, positions = _padded(ids, bucket.rows), _padded(positions, bucket.rows)
            audio, kept = _padded(audio, bucket.tokens, bucket.rows - 1), _padded(kept, bucket.tokens)
            slots = _padded(slots, bucket.slots)
        ends = [np.cumsum([0, *some], dtype=np.int32) for some in lengths]
        arrays = (ids, positions, audio, slots, kept, *ends)
        parts = BatchParts(
            [len(array) for array in arrays], *lengths, [item.slots for item in batch], _short_lengths(batch), bucket
        )
        packed = _in_one(*arrays, pinned=self._copying is not None)
        with torch.cuda.stream(self._copying):  # of nothing on a CPU
            chunks = side_by_side(batch).to(self._device, non_blocking=True)
            whole = packed.to(self._device, non_blocking=True)
        return Input.of(parts, chunks, whole, None if self._copying is None else self._copying.record_event())


def _padded(numbers: npt.NDArray[Any], size: int, value: int = 0) -> npt.NDArray[Any]:
    return np.pad(numbers, (0, size - len(numbers)), constant_values=value)


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
