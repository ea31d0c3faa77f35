"""The decoder's rows for one clip and its words. Imports no torch, for the server's own process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from aligner_svc.errors import InvalidArgumentError

TIMESTAMP = "<timestamp>"
HOP = 160  # samples between two mel frames: 100 frames a second
CHUNK = 100  # mel frames the encoder's convolutions take at a time (1 s)
CHUNK_TOKENS = 13  # audio tokens of a whole chunk


class TooManyRowsError(InvalidArgumentError):
    """The words and the audio need more positions than the model was trained for."""


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
class Vocabulary:
    """What a prompt needs to know of a checkpoint."""

    audio_tokens: tuple[str, str, str]
    """Start of audio, one audio token, end of audio."""
    audio_id: int
    max_rows: int
    """Positions of the decoder."""


class Prompt:
    """Makes prompts. Thread-safe."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
        tokenizer.no_truncation()  # a tokenizer.json may ask for either
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary

    def __call__(self, samples: int, words: Sequence[str]) -> npt.NDArray[np.int32]:
        """[rows]: an id for every audio token, words and two timestamps a word.

        `samples`: number of them, at 16 kHz. `words`: at least one, as split by words.split(). Raises TooManyRowsError if
        the model has too few positions for them.
        """
        (opening, audio, closing), audio_id = self._vocabulary.audio_tokens, self._vocabulary.audio_id
        text = opening + audio + closing + "".join(f"{word}{TIMESTAMP}{TIMESTAMP}" for word in words)
        ids = np.asarray(self._tokenizer.encode(text).ids, dtype=np.int32)
        (at,) = np.flatnonzero(ids == audio_id)
        spread = np.full(tokens_after(samples // HOP), audio_id, dtype=np.int32)
        rows, most = len(ids) - 1 + len(spread), self._vocabulary.max_rows
        if rows > most:
            message = f"{len(words)} words and this audio take {rows} positions of the model, which was trained for {most}"
            raise TooManyRowsError("TRANSCRIPT_TOO_LONG", message, field="config.transcript")
        return np.concatenate((ids[:at], spread, ids[at + 1 :]))
