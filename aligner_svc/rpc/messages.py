"""Converts between the messages of aligner.v1 and the domain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_client.retiming import Cue, Retiming, TranscriptFormat
from aligner_svc.audio.encoding import Encoding
from aligner_svc.config.limits import Limits
from aligner_svc.domain import Alignment, Stretch, Word, WordStatus
from aligner_svc.engines.base import Engine, RatedEngine
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.pipeline import Following, Job, Stage
from aligner_svc.rpc.integrity import Declared

_ENCODINGS = {
    pb.AUDIO_ENCODING_UNSPECIFIED: Encoding.CONTAINER,
    pb.AUDIO_ENCODING_LINEAR16: Encoding.LINEAR16,
    pb.AUDIO_ENCODING_FLOAT32: Encoding.FLOAT32,
    pb.AUDIO_ENCODING_MULAW: Encoding.MULAW,
}
_FORMATS = {
    pb.TRANSCRIPT_FORMAT_UNSPECIFIED: TranscriptFormat.PLAIN,
    pb.TRANSCRIPT_FORMAT_SRT: TranscriptFormat.SRT,
    pb.TRANSCRIPT_FORMAT_VTT: TranscriptFormat.VTT,
    pb.TRANSCRIPT_FORMAT_ASS: TranscriptFormat.ASS,
}
_STATUSES = {
    WordStatus.ALIGNED: pb.WORD_STATUS_ALIGNED,
    WordStatus.REPAIRED: pb.WORD_STATUS_REPAIRED,
    WordStatus.NOT_FOUND: pb.WORD_STATUS_NOT_FOUND,
    WordStatus.SKIPPED: pb.WORD_STATUS_SKIPPED,
}
_BATCH_WORDS = 256
_STAGES = {Stage.DECODING: pb.Progress.STAGE_DECODING, Stage.ALIGNING: pb.Progress.STAGE_ALIGNING}


def job(config: pb.AlignConfig | None) -> Job:
    """Raises InvalidArgumentError if there is no config or an encoding from a later version of the API."""
    if config is None:
        raise InvalidArgumentError("CONFIG_MISSING", "the request has no config", field="config")
    encoding = _ENCODINGS.get(config.encoding)
    if encoding is None:
        message = f"audio encoding {config.encoding} is not known here"
        raise InvalidArgumentError("ENCODING_UNKNOWN", message, field="config.encoding")
    transcript_format = _FORMATS.get(config.transcript_format)
    if transcript_format is None:
        message = f"transcript format {config.transcript_format} is not known here"
        raise InvalidArgumentError("TRANSCRIPT_FORMAT_UNKNOWN", message, field="config.transcript_format")
    channel_transcripts = [(one.channel, one.transcript) for one in config.channel_transcripts]
    if channel_transcripts and (config.transcript or transcript_format is not TranscriptFormat.PLAIN):
        raise several_transcripts()
    return Job(
        config.transcript,
        config.language,
        encoding,
        config.sample_rate_hz,
        config.channels,
        config.audio_track,
        min_match_score=config.min_match_score,
        phones=config.detail == pb.DETAIL_PHONES,
        pronunciations=dict(config.pronunciations),
        format=transcript_format,
        retiming=_retiming(config.retiming),
        channel_transcripts=channel_transcripts,
    )


def several_transcripts() -> InvalidArgumentError:
    """For a call with transcripts of channels and another one."""
    message = "channel_transcripts take the place of any other transcript, and of transcript_format"
    return InvalidArgumentError("TRANSCRIPTS_EXCLUSIVE", message, field="config.channel_transcripts")


def _retiming(options: pb.Retiming) -> Retiming:
    return Retiming(
        max_shift=options.max_shift_ms / 1000,
        lead_in=options.lead_in_ms / 1000,
        lead_out=options.lead_out_ms / 1000,
        min_duration=options.min_duration_ms / 1000,
        max_duration=options.max_duration_ms / 1000,
        frame_rate=options.frame_rate,
    )


def declared(config: pb.AlignConfig) -> Declared:
    """What the config says of the audio's bytes."""
    return Declared(config.audio_bytes, config.audio_sha256)


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def word(value: Word) -> pb.Word:
    return pb.Word(
        text=value.text,
        start_ms=milliseconds(value.start),
        end_ms=milliseconds(value.end),
        confidence=value.confidence,
        status=_STATUSES[value.status],
        char_start=value.char_start,
        char_end=value.char_end,
        speaker=value.speaker,
        phones=[
            pb.Phone(symbol=phone.symbol, start_ms=milliseconds(phone.start), end_ms=milliseconds(phone.end))
            for phone in value.phones
        ],
        channel=value.channel,
    )


def cue(value: Cue) -> pb.Cue:
    return pb.Cue(
        start_ms=milliseconds(value.start),
        end_ms=milliseconds(value.end),
        status=pb.CueStatus.Value(f"CUE_STATUS_{value.status.value}"),
        shift_ms=milliseconds(value.shift),
        char_start=value.char_start,
        char_end=value.char_end,
    )


def _span(value: Stretch) -> pb.Span:
    return pb.Span(start_ms=milliseconds(value.start), end_ms=milliseconds(value.end), channel=value.channel)


def summary(alignment: Alignment) -> pb.Summary:
    timing = alignment.timing
    return pb.Summary(
        audio_ms=milliseconds(alignment.audio_seconds),
        audio_start_ms=milliseconds(alignment.audio_start),
        engine=alignment.engine,
        language=alignment.language,
        match_score=alignment.match_score,
        phone_set=alignment.phone_set,
        warnings=[pb.Warning(code=one.code, message=one.message, channel=one.channel) for one in alignment.warnings],
        timing=pb.Timing(
            queue_ms=milliseconds(timing.queue),
            decode_ms=milliseconds(timing.decode),
            align_ms=milliseconds(timing.align),
            total_ms=milliseconds(timing.total),
            scan_ms=milliseconds(timing.scan),
        ),
        unaligned=[_span(at) for at in alignment.unaligned],
        channels=[pb.ChannelSummary(channel=one.number, match_score=one.match_score) for one in alignment.channels],
    )


def response(alignment: Alignment) -> pb.AlignResponse:
    cues = [cue(value) for value in alignment.cues]
    return pb.AlignResponse(words=[word(value) for value in alignment.words], summary=summary(alignment), cues=cues)


def stream_responses(alignment: Alignment) -> Iterator[pb.StreamAlignResponse]:
    """The words and cues in batches, then the summary."""
    yield from word_batches(alignment.words)
    for first in range(0, len(alignment.cues), _BATCH_WORDS):
        batch = [cue(value) for value in alignment.cues[first : first + _BATCH_WORDS]]
        yield pb.StreamAlignResponse(cues=pb.CueBatch(cues=batch))
    yield pb.StreamAlignResponse(summary=summary(alignment))


def word_batches(words: Sequence[Word]) -> Iterator[pb.StreamAlignResponse]:
    for first in range(0, len(words), _BATCH_WORDS):
        batch = [word(value) for value in words[first : first + _BATCH_WORDS]]
        yield pb.StreamAlignResponse(words=pb.WordBatch(words=batch))


def live_responses(
    answer: Sequence[Word] | Alignment | None, received: int, following: Following
) -> Iterator[pb.StreamAlignResponse]:
    """What `LiveCall.responses` yields; `received` in bytes."""
    if answer is None:
        progress = pb.Progress(
            stage=pb.Progress.STAGE_ALIGNING if following.ended else pb.Progress.STAGE_RECEIVING,
            received_bytes=received,
            aligned_ms=milliseconds(following.aligned),
            audio_ms=milliseconds(following.seconds) if following.ended else 0,
        )
        yield pb.StreamAlignResponse(progress=progress)
    elif isinstance(answer, Alignment):
        yield pb.StreamAlignResponse(summary=summary(answer))
    else:
        yield from word_batches(answer)


def server_info(version: str, engine: Engine, limits: Limits) -> pb.GetServerInfoResponse:
    languages = sorted(engine.languages)
    support = engine.support if isinstance(engine, RatedEngine) else {}
    return pb.GetServerInfoResponse(
        version=version,
        engine=engine.name,
        languages=languages,
        limits=pb.Limits(
            unary_audio_bytes=limits.unary_audio_bytes,
            stream_audio_bytes=limits.stream_audio_bytes,
            stream_chunk_bytes=limits.stream_chunk_bytes,
            audio_seconds=int(limits.audio_seconds),
            transcript_chars=limits.transcript_chars,
        ),
        language_support=[
            pb.LanguageSupport(
                language=language,
                tier=pb.LanguageTier.Value(f"LANGUAGE_TIER_{support[language].tier.value}"),
                typical_error_ms=support[language].error_ms,
                measured_on=support[language].measured_on,
            )
            for language in languages
            if language in support
        ],
    )


def receiving(received: int) -> pb.StreamAlignResponse:
    """Progress of an upload; `received` in bytes."""
    return pb.StreamAlignResponse(progress=pb.Progress(stage=pb.Progress.STAGE_RECEIVING, received_bytes=received))


def working(stage: Stage, received: int, aligned: float, total: float) -> pb.StreamAlignResponse:
    """Progress after the upload; `aligned` and `total` in seconds, `total` 0 while unknown."""
    progress = pb.Progress(
        stage=_STAGES[stage], received_bytes=received, aligned_ms=milliseconds(aligned), audio_ms=milliseconds(total)
    )
    return pb.StreamAlignResponse(progress=progress)
