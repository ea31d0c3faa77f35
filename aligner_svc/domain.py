"""The values that the rooms exchange: plain, frozen, free of gRPC and of any engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aligner_client.alignment import PLACED, Alignment, Channel, Phone, Stretch, Timing, Warning, Word, WordStatus

if TYPE_CHECKING:  # clients and the command line need no numpy, and it takes a tenth of a second to import
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "PLACED",
    "SAMPLE_RATE",
    "Alignment",
    "Caller",
    "Channel",
    "Clip",
    "Phone",
    "ProgressSink",
    "Stretch",
    "Timing",
    "Token",
    "Warning",
    "Word",
    "WordStatus",
]

SAMPLE_RATE = 16_000
"""Samples a second of every decoded clip (Hz)."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Decoded audio: int16 samples of shape [n], 16 kHz, mono.

    int16 and not float32: it is what the acoustic models were trained on, and four
    hours of it are 461 MB instead of 922 MB. Quiet recordings, and float input above full
    scale, are scaled before they are quantised.
    """

    samples: npt.NDArray[np.int16]

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Token:
    """One word of the transcript and how it is spoken.

    `text` is `transcript[char_start:char_end]` (code points), without surrounding
    punctuation; markup in it is resolved ("Don&#39;t" is "Don't"). `spoken` holds lower-case words ("five", "dollars"); it is
    empty for a word that the language cannot pronounce, one in another script, and for one that is `skipped`. A spoken word may
    be several ways to say it (text/readings.py).
    """

    text: str
    char_start: int
    char_end: int
    spoken: tuple[str, ...]
    skipped: bool = False
    """A speaker label, a sound tag or other markup, which is not expected to be heard."""
    speaker: str = ""
    """Of a speaker label: whom it names, for the words up to the next one."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a job is done for, and until when.

    `client`: fair queues give each client an equal share. `deadline`: the event loop's time (s) after which the answer is no
    longer wanted; None: no deadline.
    """

    client: str = ""
    deadline: float | None = None


ProgressSink = Callable[[float], None]
"""Called on the event loop with the seconds of audio aligned so far; must not block."""
