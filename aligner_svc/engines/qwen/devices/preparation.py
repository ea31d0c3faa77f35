"""The model's input for clips and their words: everything that is computed before the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from aligner_svc.engines.qwen.checkpoint import Checkpoint
from aligner_svc.engines.qwen.devices.mel import LogMel
from aligner_svc.engines.qwen.devices.wire import Item
from aligner_svc.engines.qwen.prompt import CHUNK, HOP, Prompt, Vocabulary, chunks_of

Map: TypeAlias = Callable[[Callable[[int], None], Iterable[int]], Iterable[None]]
"""`map`, or that of an executor."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One clip, ready for the device."""

    chunks: torch.Tensor
    """[chunks, mels, CHUNK]: the spectrogram, in the model's precision, on the CPU; the last chunk is padded with zeros."""
    frames: int
    ids: npt.NDArray[np.int32]
    """[rows]: the prompt with an id for every audio token, words and timestamps."""
    slots: int
    """Timestamps to find: two a word."""
    batch: torch.Tensor | None = None
    """The chunks of all clips of its batch, of which `chunks` is a part; None: it was prepared alone."""

    @property
    def rows(self) -> int:
        """Rows of the decoder: the clip's cost."""
        return len(self.ids)


class Preparation:
    """Turns clips into Prepared ones. Thread-safe."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, *, pinned: bool = False) -> None:
        """`pinned`: into memory that a GPU reads by itself, so that copies need not be waited for."""
        self.vocabulary = Vocabulary(checkpoint.audio_tokens, checkpoint.audio_id, checkpoint.max_rows)
        self.prompt = Prompt(checkpoint.tokenizer.backend_tokenizer, self.vocabulary)
        self._timestamp_id = checkpoint.timestamp_id
        self._dtype = dtype
        self._pinned = pinned
        self._mels = checkpoint.mel_filters.shape[1]
        self._mel = LogMel(checkpoint.mel_filters, torch.device("cpu"))

    def __call__(self, samples: npt.NDArray[np.int16], words: Sequence[str]) -> Prepared:
        """`samples`: [n] at 16 kHz. `words` and errors as in Prompt."""
        (prepared,) = self.batch([Item(samples, self.prompt(len(samples), words))])
        return prepared

    def batch(self, items: Sequence[Item], run: Map = map) -> list[Prepared]:
        """Clips side by side in one buffer, which goes to the device as it is. Their ids are those of Prompt."""
        frames = [len(item.samples) // HOP for item in items]
        ends = [0, *accumulate(map(chunks_of, frames))]
        chunks = torch.empty((ends[-1], self._mels, CHUNK), dtype=self._dtype, pin_memory=self._pinned)

        def write(index: int) -> None:
            _write(chunks[ends[index] : ends[index + 1]], self._mel(torch.tensor(items[index].samples)))

        for _ in run(write, range(len(items))):
            pass
        return [
            Prepared(
                chunks[ends[index] : ends[index + 1]],
                frames[index],
                item.ids,
                int(np.count_nonzero(item.ids == self._timestamp_id)),
                chunks,
            )
            for index, item in enumerate(items)
        ]


def side_by_side(batch: Sequence[Prepared]) -> torch.Tensor:
    """The chunks of all clips: their buffer, if they were prepared together, or a copy."""
    whole = batch[0].batch
    starts = accumulate((len(item.chunks) for item in batch), initial=0)
    in_place = whole is not None and all(
        item.batch is whole and item.chunks.data_ptr() == whole[start : start + 1].data_ptr()
        for item, start in zip(batch, starts, strict=False)
    )
    if whole is not None and in_place and sum(len(item.chunks) for item in batch) == len(whole):
        return whole
    return torch.cat([item.chunks for item in batch])


def _write(chunks: torch.Tensor, mel: torch.Tensor) -> None:
    """[mels, frames] into [chunks, mels, CHUNK]."""
    whole, rest = divmod(mel.shape[1], CHUNK)
    chunks[:whole] = mel[:, : whole * CHUNK].unflatten(1, (whole, CHUNK)).transpose(0, 1)
    if rest:
        chunks[whole, :, :rest] = mel[:, whole * CHUNK :]
        chunks[whole, :, rest:] = 0
