"""The values of the client and their protobuf messages. Seconds here, milliseconds on the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from aligner_client import alignment
from aligner_client.alignment import Alignment, Phone, Timing, Word, WordStatus
from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.errors import IncompleteAnswerError
from aligner_client.retiming import Cue, Retiming, TranscriptFormat, TranscriptFormatLike
from aligner_client.retiming.messages import FORMATS, read_cue, retiming_message
from aligner_client.source import Digest


class AudioEncoding(Enum):
    """The format of the audio bytes."""

    CONTAINER = "container"
    """A file (wav, flac, mp3, ogg, m4a, ...); the server detects which from its first bytes."""
    LINEAR16 = "linear16"
    """Headerless signed 16-bit little-endian PCM. Needs a sample rate."""
    FLOAT32 = "float32"
    """Headerless 32-bit little-endian IEEE float PCM in -1..1. Needs a sample rate."""
    MULAW = "mulaw"
    """Headerless 8-bit G.711 mu-law. Needs a sample rate."""


class Stage(Enum):
    """What the server is doing with a stream."""

    RECEIVING = "receiving"
    DECODING = "decoding"
    ALIGNING = "aligning"


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a stream: `received_bytes` of audio have arrived, `aligned_seconds` of `audio_seconds` are done."""

    stage: Stage
    received_bytes: int
    aligned_seconds: float
    audio_seconds: float | None
    """None until the server knows how long the audio is."""
    audio_bytes: int | None = field(default=None, compare=False)
    """The size of the whole upload; None if it is not known before it ends."""

    @property
    def fraction(self) -> float | None:
        """The share that is done, 0..1: of the audio's time while it is aligned, of its bytes before; None if not known."""
        if self.stage is Stage.ALIGNING:
            done, whole = self.aligned_seconds, self.audio_seconds
        else:
            done, whole = float(self.received_bytes), self.audio_bytes
        return min(1.0, done / whole) if whole else None


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Upper bounds of a server: bytes of audio per call and per message, seconds of audio, code points of transcript."""

    unary_audio_bytes: int
    stream_audio_bytes: int
    stream_chunk_bytes: int
    audio_seconds: float
    transcript_chars: int


@dataclass(frozen=True, slots=True)
class LanguageSupport:
    """How well a server aligns a language.

    `tier`: "exact", "approximate" or "experimental". `typical_error`: seconds, 0: unknown.
    """

    tier: str
    typical_error: float = 0.0
    measured_on: str = ""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server runs and accepts. `languages` are BCP-47 tags, sorted."""

    version: str
    engine: str
    languages: tuple[str, ...]
    limits: ServerLimits
    language_support: Mapping[str, LanguageSupport] = field(default_factory=dict)
    """By language; without those of which the server does not tell."""


_ENCODINGS = {
    AudioEncoding.CONTAINER: pb.AUDIO_ENCODING_UNSPECIFIED,
    AudioEncoding.LINEAR16: pb.AUDIO_ENCODING_LINEAR16,
    AudioEncoding.FLOAT32: pb.AUDIO_ENCODING_FLOAT32,
    AudioEncoding.MULAW: pb.AUDIO_ENCODING_MULAW,
}

# A status from a later version of the API is read as REPAIRED: there is a time, but perhaps not one that the model found.
_STATUSES = {
    pb.WORD_STATUS_ALIGNED: WordStatus.ALIGNED,
    pb.WORD_STATUS_NOT_FOUND: WordStatus.NOT_FOUND,
    pb.WORD_STATUS_SKIPPED: WordStatus.SKIPPED,
}

_STAGES = {
    pb.Progress.STAGE_RECEIVING: Stage.RECEIVING,
    pb.Progress.STAGE_DECODING: Stage.DECODING,
    pb.Progress.STAGE_ALIGNING: Stage.ALIGNING,
}


Detail = Literal["words", "phones"]
"""What comes back for each word: with "phones", its sounds too."""
_DETAILS = {"words": pb.DETAIL_UNSPECIFIED, "phones": pb.DETAIL_PHONES}

Encoding = AudioEncoding | Literal["container", "linear16", "float32", "mulaw"]
"""An encoding, or its value."""
Transcript = str | Mapping[int, str]
"""Of a recording, or by channel, from 0, what was said on it."""


def build_config(  # noqa: PLR0917 - as many as a call has
    transcript: Transcript,
    language: str,
    encoding: Encoding,
    sample_rate_hz: int,
    channels: int,
    audio_track: int,
    min_match_score: float | None,
    transcript_format: TranscriptFormatLike = TranscriptFormat.PLAIN,
    retiming: Retiming | None = None,
    detail: Detail = "words",
    pronunciations: Mapping[str, str] | None = None,
) -> pb.AlignConfig:
    """The config of either call. Raises ValueError for a number outside of 32 bits, and for an unknown encoding or format."""
    channels_said = transcript if isinstance(transcript, Mapping) else {}
    return pb.AlignConfig(
        transcript=transcript if isinstance(transcript, str) else "",
        channel_transcripts=[pb.ChannelTranscript(channel=one, transcript=said) for one, said in channels_said.items()],
        language=language,
        encoding=_ENCODINGS[_encoding(encoding)],
        sample_rate_hz=sample_rate_hz,
        channels=channels,
        min_match_score=min_match_score,
        audio_track=audio_track,
        transcript_format=FORMATS[TranscriptFormat(transcript_format)],
        detail=_DETAILS[detail],
        pronunciations=pronunciations,
        retiming=None if retiming is None else retiming_message(retiming),
    )


def _encoding(encoding: Encoding) -> AudioEncoding:
    try:
        return AudioEncoding(encoding)
    except ValueError:
        known = ", ".join(one.value for one in AudioEncoding)
        raise ValueError(f"{encoding!r} is not an encoding; these are: {known}") from None


def declare(config: pb.AlignConfig, digest: Digest | None) -> None:
    """Set the size and SHA-256 of the audio in `config`, if they are known."""
    if digest is not None:
        config.audio_bytes, config.audio_sha256 = digest.size, digest.sha256


def read_response(response: pb.AlignResponse, config: pb.AlignConfig) -> Alignment:
    """The answer of `Align`."""
    return _alignment([_word(word) for word in response.words], response.summary, config, map(read_cue, response.cues))


def read_server_info(response: pb.GetServerInfoResponse) -> ServerInfo:
    """The answer of `GetServerInfo`."""
    limits = response.limits
    return ServerInfo(
        version=response.version,
        engine=response.engine,
        languages=tuple(sorted(response.languages)),
        limits=ServerLimits(
            unary_audio_bytes=limits.unary_audio_bytes,
            stream_audio_bytes=limits.stream_audio_bytes,
            stream_chunk_bytes=limits.stream_chunk_bytes,
            audio_seconds=limits.audio_seconds,
            transcript_chars=limits.transcript_chars,
        ),
        language_support={
            support.language: LanguageSupport(
                pb.LanguageTier.Name(support.tier).removeprefix("LANGUAGE_TIER_").lower(),
                support.typical_error_ms / 1000,
                support.measured_on,
            )
            for support in response.language_support
        },
    )


class StreamAnswer:
    """The answer of `StreamAlign`, message by message."""

    def __init__(self, config: pb.AlignConfig, on_progress: ProgressCallback | None) -> None:
        self._config = config
        self._on_progress = on_progress
        self._words: list[Word] = []
        self._cues: list[Cue] = []
        self._summary: pb.Summary | None = None

    def reset(self) -> None:
        """Discard the answer of a failed attempt."""
        self._words.clear()
        self._cues.clear()
        self._summary = None

    def feed(self, response: pb.StreamAlignResponse) -> Sequence[Word]:
        """Add one message and return its words."""
        match response.WhichOneof("payload"):
            case "progress":
                if self._on_progress is not None:
                    self._on_progress(_progress(response.progress, self._config.audio_bytes or None))
            case "words":
                words = [_word(word) for word in response.words.words]
                self._words += words
                return words
            case "cues":
                self._cues += map(read_cue, response.cues.cues)
            case "summary":
                self._summary = response.summary
        return ()

    def alignment(self) -> Alignment:
        """The whole answer, once the stream has ended. Raises IncompleteAnswerError if there was no summary."""
        if self._summary is None:
            raise IncompleteAnswerError
        return _alignment(self._words, self._summary, self._config, self._cues)


def _word(word: pb.Word) -> Word:
    return Word(
        text=word.text,
        start=word.start_ms / 1000,
        end=word.end_ms / 1000,
        confidence=word.confidence,
        status=_STATUSES.get(word.status, WordStatus.REPAIRED),
        char_start=word.char_start,
        char_end=word.char_end,
        speaker=word.speaker,
        phones=tuple(Phone(phone.symbol, phone.start_ms / 1000, phone.end_ms / 1000) for phone in word.phones),
        channel=_channel(word),
    )


def _channel(message: pb.Word | pb.Warning | pb.Span) -> int | None:
    return message.channel if message.HasField("channel") else None


def _progress(progress: pb.Progress, audio_bytes: int | None) -> Progress:
    return Progress(
        stage=_STAGES.get(progress.stage, Stage.RECEIVING),
        received_bytes=progress.received_bytes,
        aligned_seconds=progress.aligned_ms / 1000,
        audio_seconds=progress.audio_ms / 1000 if progress.audio_ms else None,
        audio_bytes=audio_bytes,
    )


def _alignment(words: Sequence[Word], summary: pb.Summary, config: pb.AlignConfig, cues: Iterable[Cue]) -> Alignment:
    timing = summary.timing
    said = {one.channel: one.transcript for one in config.channel_transcripts}
    return Alignment(
        words=tuple(words),
        audio_seconds=summary.audio_ms / 1000,
        audio_start=summary.audio_start_ms / 1000,
        engine=summary.engine,
        language=summary.language,
        match_score=summary.match_score,
        phone_set=summary.phone_set,
        warnings=tuple(alignment.Warning(one.code, one.message, _channel(one)) for one in summary.warnings),
        timing=Timing(
            queue=timing.queue_ms / 1000,
            decode=timing.decode_ms / 1000,
            align=timing.align_ms / 1000,
            total=timing.total_ms / 1000,
            scan=timing.scan_ms / 1000,
        ),
        unaligned=tuple(alignment.Stretch(at.start_ms / 1000, at.end_ms / 1000, _channel(at)) for at in summary.unaligned),
        cues=tuple(cues),
        channels=tuple(alignment.Channel(one.channel, one.match_score, said.get(one.channel)) for one in summary.channels),
        transcript=None if said else config.transcript,
        transcript_format=next(known for known, sent in FORMATS.items() if sent == config.transcript_format),
    )
