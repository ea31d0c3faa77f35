"""The model's input for one clip and its words: everything that is computed before the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from aligner_svc.engines.qwen.checkpoint import TIMESTAMP, Checkpoint
from aligner_svc.engines.qwen.mel import HOP, LogMel
from aligner_svc.errors import InvalidArgumentError

CHUNK = 100  # mel frames the encoder's convolutions take at a time (1 s)
CHUNK_TOKENS = 13  # audio tokens of a whole chunk


def chunks_of(frames: int) -> int:
    """Number of chunks for `frames` mel frames, a partial last one included."""
    return -(-frames // CHUNK)


def tokens_after(frames: int) -> int:
    """Number of audio tokens for `frames` mel frames: each chunk halved three times, rounded up."""
    tail = frames % CHUNK
    for _ in range(3):
        tail = (tail + 1) // 2
    return frames // CHUNK * CHUNK_TOKENS + tail


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
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._mel = LogMel(checkpoint.mel_filters, torch.device("cpu"))

    def __call__(self, samples: npt.NDArray[np.int16], words: Sequence[str]) -> Prepared:
        """`samples`: [n] at 16 kHz. `words`: at least one, as split by words.split().

        Raises InvalidArgumentError if the model has too few positions for them.
        """
        tokenizer = self._checkpoint.tokenizer
        opening, audio, closing = self._checkpoint.audio_tokens
        text = opening + audio + closing + "".join(f"{word}{TIMESTAMP}{TIMESTAMP}" for word in words)
        ids = np.asarray(tokenizer(text)["input_ids"], dtype=np.int64)
        (at,) = np.flatnonzero(ids == self._checkpoint.audio_id)
        frames = len(samples) // HOP
        spread = np.full(tokens_after(frames), self._checkpoint.audio_id)
        rows, most = len(ids) - 1 + len(spread), self._checkpoint.max_rows
        if rows > most:
            message = f"{len(words)} words and this audio take {rows} positions of the model, which was trained for {most}"
            raise InvalidArgumentError("TRANSCRIPT_TOO_LONG", message, field="config.transcript")
        ids = np.concatenate((ids[:at], spread, ids[at + 1 :]))
        mel = self._mel(torch.tensor(samples)).to(self._dtype)
        return Prepared(mel, ids, slots=2 * len(words))
