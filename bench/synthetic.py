"""Noise and words that cost as much as speech: random weights make no difference between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aligner_svc.domain import SAMPLE_RATE, Token
from aligner_svc.text.model_words import split

LANGUAGE = "en"
WORDS_A_SECOND = 2.5
_VOCABULARY = ("the", "quick", "brown", "fox", "over", "lazy", "dog", "and", "when", "it", "had", "spoken", "these", "words")


@dataclass(frozen=True, slots=True)
class Speech:
    """Noise with the rhythm of syllables, and words for it."""

    samples: npt.NDArray[np.int16]
    text: str

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.samples) / SAMPLE_RATE

    @property
    def tokens(self) -> Sequence[Token]:
        """The words as the model gets them."""
        return split(self.text, LANGUAGE)


def speech(seconds: float, seed: int = 0) -> Speech:
    """Deterministic: equal for equal arguments."""
    draw = np.random.default_rng((seed, int(seconds * 10)))
    length = int(seconds * SAMPLE_RATE)
    swell = 0.1 + np.abs(np.sin(np.arange(length) * (np.pi * (3 + seed % 3) / SAMPLE_RATE)))
    text = " ".join(draw.choice(_VOCABULARY, max(1, round(seconds * WORDS_A_SECOND))))
    return Speech((draw.normal(0, 2500, length) * swell).clip(-32768, 32767).astype(np.int16), text)
