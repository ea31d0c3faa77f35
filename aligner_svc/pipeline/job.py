"""What is asked for, and what is called on the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from aligner_client.retiming import Retiming, TranscriptFormat
from aligner_svc.audio.decode import Decoded
from aligner_svc.audio.encoding import Encoding


@dataclass(frozen=True, slots=True)
class Job:
    """A request without its audio. Headerless encodings need a rate; 0 channels mean 1."""

    transcript: str
    language: str
    encoding: Encoding = Encoding.CONTAINER
    sample_rate_hz: int = 0
    channels: int = 0
    track: int = 0
    """Of several audio tracks the one to align, from 1; 0: the decoder chooses."""
    min_match_score: float = 0.0
    """0..1; a lower match score is a MismatchError."""
    phones: bool = False
    """With the sounds of the words."""
    pronunciations: Mapping[str, str] = field(default_factory=dict)
    """Of words of the transcript, symbols with blanks between."""
    format: TranscriptFormat = TranscriptFormat.PLAIN
    """Of a subtitle file the answer has the cues."""
    retiming: Retiming = field(default_factory=Retiming)
    channel_transcripts: Sequence[tuple[int, str]] = ()
    """In place of `transcript`: channels, from 0 and each once, with what was said on them."""

    @property
    def transcripts(self) -> Sequence[tuple[int | None, str]]:
        """All there are, with their channels; None: that of the whole recording."""
        return self.channel_transcripts or [(None, self.transcript)]


class Stage(Enum):
    """What the pipeline is doing with a recording."""

    DECODING = "DECODING"
    ALIGNING = "ALIGNING"


Observer = Callable[[Stage, float, float], None]
"""Called with the stage, the seconds aligned and the seconds in total (0 while unknown). Must not block."""


def ignore(stage: Stage, aligned: float, total: float) -> None: ...


async def _nothing(*_: object) -> None: ...


@dataclass(frozen=True, slots=True)
class JobHooks:
    """What is awaited on the way; an exception ends the job."""

    prolong: Callable[[], Awaitable[None]] = _nothing
    """The job turns out to be long: before the long part of it begins, perhaps twice."""
    text: Callable[[int], Awaitable[None]] = _nothing
    """The transcript is about to be worked on: it has so many characters, not more than are accepted."""
    decoded: Callable[[Decoded], Awaitable[None]] = _nothing
    """The audio is decoded: before the engine works on it."""
