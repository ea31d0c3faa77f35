"""The model's input for one clip and its words: everything that is computed before the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from aligner_svc.engines.qwen.checkpoint import Checkpoint
from aligner_svc.engines.qwen.devices.mel import LogMel
from aligner_svc.engines.qwen.prompt import Prompt, Vocabulary


@dataclass(frozen=True, slots=True)
class Prepared:
    """One clip, ready for the device."""

    mel: torch.Tensor  # [mels, frames], in the model's precision, on the CPU
    ids: npt.NDArray[np.int64]  # [rows]: the prompt with an id for every audio token, words and timestamps
    slots: int  # timestamps to find: two a word

    @property
    def rows(self) -> int:
        """Rows of the decoder: the clip's cost."""
        return len(self.ids)


class Preparation:
    """Turns clips into Prepared ones. Thread-safe."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
        self.vocabulary = Vocabulary(checkpoint.audio_tokens, checkpoint.audio_id, checkpoint.max_rows)
        self.prompt = Prompt(checkpoint.tokenizer.backend_tokenizer, self.vocabulary)
        self._timestamp_id = checkpoint.timestamp_id
        self._dtype = dtype
        self._mel = LogMel(checkpoint.mel_filters, torch.device("cpu"))

    def __call__(self, samples: npt.NDArray[np.int16], words: Sequence[str]) -> Prepared:
        """`samples`: [n] at 16 kHz. `words` and errors as in Prompt."""
        return self.with_ids(samples, self.prompt(len(samples), words))

    def with_ids(self, samples: npt.NDArray[np.int16], ids: npt.NDArray[np.int32]) -> Prepared:
        """`ids`: of Prompt, for as many samples."""
        mel = self._mel(torch.tensor(samples)).to(self._dtype)
        return Prepared(mel, ids.astype(np.int64), slots=int(np.count_nonzero(ids == self._timestamp_id)))
