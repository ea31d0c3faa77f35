"""The values that the rooms exchange: plain, frozen, free of gRPC and of any engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # clients and the command line need no numpy, and it takes a tenth of a second to import
    import numpy as np
    import numpy.typing as npt

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


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of audio. Seconds from the first sample."""

    start: float
    end: float


class WordStatus(Enum):
    """How the time of a word was found."""

    ALIGNED = "ALIGNED"
    """Found in the audio by the acoustic model."""
    REPAIRED = "REPAIRED"
    """Time inferred from the neighbours."""
    NOT_FOUND = "NOT_FOUND"
    """Not in the audio, as far as the model can tell."""
    SKIPPED = "SKIPPED"
    """Markup, which is not expected in the audio: a speaker label, a sound tag, a cue's number. It was not looked for."""


PLACED = frozenset({WordStatus.ALIGNED, WordStatus.REPAIRED})
"""The statuses of words that have a time of their own."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the transcript in time. Seconds from the first sample; confidence 0..1."""

    text: str
    start: float
    end: float
    confidence: float
    status: WordStatus
    char_start: int
    char_end: int


@dataclass(frozen=True, slots=True)
class Warning:
    """Something the client should know although the call succeeded."""

    code: str
    message: str


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


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the service's time went, in seconds."""

    queue: float = 0.0
    decode: float = 0.0
    align: float = 0.0
    total: float = 0.0
    scan: float = 0.0
    """From the end of the upload to the verdict of the virus scan; a stream is worked on meanwhile."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """Every word of the transcript in time, and how far the result can be trusted."""

    words: Sequence[Word]
    audio_seconds: float
    engine: str
    language: str
    match_score: float
    warnings: Sequence[Warning] = ()
    timing: Timing = field(default_factory=Timing)
    unaligned: Sequence[Stretch] = ()
    """Loud stretches that no word covers, speech that is not in the transcript for example: the counterpart of NOT_FOUND."""
    audio_start: float = 0.0
    """When the first sample is played on the file's own clock (s): above 0 if the sound of a film begins later than its picture.
    Times of words count from the first sample."""
