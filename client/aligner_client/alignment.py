"""The result of a call: every word of a transcript in time. Plain, frozen values; times in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from aligner_client.formats import CueLayout, Format
    from aligner_client.retiming import Cue, TranscriptFormat


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of audio. Seconds from the first sample."""

    start: float
    end: float
    channel: int | None = None
    """As of a Word."""


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


class Phone(NamedTuple):
    """A sound of a word. `symbol` of `Alignment.phone_set`; seconds from the first sample."""

    symbol: str
    start: float
    end: float


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
    speaker: str = ""
    """By the label before it in the transcript, as it is written there; empty if there is none."""
    phones: tuple[Phone, ...] = ()
    """If they were asked for and the word was found; they fill it."""
    channel: int | None = None
    """The one it is said on, from 0, if each channel has a transcript of its own."""


@dataclass(frozen=True, slots=True)
class Warning:
    """Something the client should know although the call succeeded."""

    code: str
    message: str
    channel: int | None = None
    """The one it is about, if each has a transcript of its own; None: about all."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel of the recording that has a transcript of its own. `number`: from 0, in the order of the file."""

    number: int
    match_score: float
    transcript: str | None = field(default=None, compare=False)
    """The text that was sent for it, if the client made this."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the service's time went, in seconds."""

    queue: float = 0.0
    decode: float = 0.0
    align: float = 0.0
    total: float = 0.0
    scan: float = 0.0
    """From the end of the upload to the verdict of the virus scan; a stream is worked on meanwhile."""


@dataclass(frozen=True, slots=True, repr=False)
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
    phone_set: str = ""
    """Of the words' phones, "ARPABET" or "IPA"; empty if they were not asked for."""
    cues: Sequence[Cue] = ()
    """Of a transcript that is a subtitle file, in its order."""
    audio_start: float = 0.0
    """When the first sample is played on the file's own clock (s): above 0 if the sound of a film begins later than its picture.
    Times of words count from the first sample."""
    channels: Sequence[Channel] = ()
    """Those with a transcript of their own, which their words' offsets refer to; `match_score` is the lowest of them."""
    transcript: str | None = field(default=None, compare=False)
    """The text that was sent, which the words' offsets refer to, if the client made this; subtitles keep its punctuation."""
    transcript_format: TranscriptFormat | None = field(default=None, compare=False)
    """What it is, if the client made this."""

    def retimed(self) -> str:
        """The transcript, a subtitle file, with the times of `cues` and else unchanged. Raises ValueError if it is none."""
        from aligner_client.retiming import SubtitleFile, TranscriptFormat  # noqa: PLC0415 - it imports this module

        if self.transcript is None or self.transcript_format is None or self.transcript_format is TranscriptFormat.PLAIN:
            raise ValueError("the transcript is no subtitle file")
        times = [(round(cue.start * 1000), round(cue.end * 1000)) for cue in self.cues]
        return SubtitleFile.of(self.transcript, self.transcript_format).with_times(times)

    def channel(self, number: int) -> Alignment:
        """One of `channels` alone, as if it were the recording; warnings about all of the audio included. Raises ValueError."""
        found = next((one for one in self.channels if one.number == number), None)
        if found is None:
            raise ValueError(f"channel {number} has no transcript of its own")
        return replace(
            self,
            words=tuple(word for word in self.words if word.channel == number),
            unaligned=tuple(at for at in self.unaligned if at.channel == number),
            warnings=tuple(one for one in self.warnings if one.channel in {None, number}),
            match_score=found.match_score,
            transcript=found.transcript,
            channels=(),
        )

    def to_json(self) -> str:
        """Everything, times in seconds: `{"words": [...], "summary": {...}}`."""
        return self.render("json")

    def to_srt(self, layout: CueLayout | None = None) -> str:
        """SubRip subtitles, at most `layout` at a time."""
        return self.render("srt", layout=layout)

    def to_vtt(self, layout: CueLayout | None = None, *, word_times: bool = False) -> str:
        """WebVTT subtitles, at most `layout` at a time. `word_times`: with the time of each word in them."""
        return self.render("word-vtt" if word_times else "vtt", layout=layout)

    def to_textgrid(self) -> str:
        """Praat's TextGrid, a tier of words."""
        return self.render("textgrid")

    def render(self, format: Format | str, *, recording: str = "audio", layout: CueLayout | None = None) -> str:  # noqa: A002
        """The text of a file in any Format, or in that of its name. `recording` is its name in CTM. Raises ValueError."""
        from aligner_client.formats import Format, render  # noqa: PLC0415 - they import this module

        return render(self, Format(format), transcript=self.transcript, recording=recording, layout=layout)

    def __repr__(self) -> str:
        missing = sum(word.status is WordStatus.NOT_FOUND for word in self.words)
        return (
            f"<Alignment of {len(self.words)} words, {missing} not found, in {self.audio_seconds:.2f} s;"
            f" match {self.match_score:.2f}, {self.language}, {self.engine}>"
        )

    def _repr_html_(self) -> str:
        """For notebooks: a table of the words."""
        from aligner_client.formats.html import render_html  # noqa: PLC0415 - it imports this module

        return render_html(self)
