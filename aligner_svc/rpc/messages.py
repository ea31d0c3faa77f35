"""Converts between the messages of aligner.v1 and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from aligner_client.api.v1 import aligner_pb2 as pb
from aligner_svc.audio.encoding import Encoding
from aligner_svc.config.limits import Limits
from aligner_svc.domain import Alignment, Word, WordStatus
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.pipeline import Following, Job, Stage
from aligner_svc.rpc.integrity import Declared

_ENCODINGS = {
    pb.AUDIO_ENCODING_UNSPECIFIED: Encoding.CONTAINER,
    pb.AUDIO_ENCODING_LINEAR16: Encoding.LINEAR16,
    pb.AUDIO_ENCODING_FLOAT32: Encoding.FLOAT32,
    pb.AUDIO_ENCODING_MULAW: Encoding.MULAW,
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
    return Job(
        config.transcript,
        config.language,
        encoding,
        config.sample_rate_hz,
        config.channels,
        config.audio_track,
        min_match_score=config.min_match_score,
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
    )


def summary(alignment: Alignment) -> pb.Summary:
    timing = alignment.timing
    return pb.Summary(
        audio_ms=milliseconds(alignment.audio_seconds),
        audio_start_ms=milliseconds(alignment.audio_start),
        engine=alignment.engine,
        language=alignment.language,
        match_score=alignment.match_score,
        warnings=[pb.Warning(code=warning.code, message=warning.message) for warning in alignment.warnings],
        timing=pb.Timing(
            queue_ms=milliseconds(timing.queue),
            decode_ms=milliseconds(timing.decode),
            align_ms=milliseconds(timing.align),
            total_ms=milliseconds(timing.total),
            scan_ms=milliseconds(timing.scan),
        ),
        unaligned=[pb.Span(start_ms=milliseconds(at.start), end_ms=milliseconds(at.end)) for at in alignment.unaligned],
    )


def response(alignment: Alignment) -> pb.AlignResponse:
    return pb.AlignResponse(words=[word(value) for value in alignment.words], summary=summary(alignment))


def stream_responses(alignment: Alignment) -> Iterator[pb.StreamAlignResponse]:
    """The words in batches, then the summary."""
    yield from word_batches(alignment.words)
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


def server_info(version: str, engine: str, languages: Iterable[str], limits: Limits) -> pb.GetServerInfoResponse:
    return pb.GetServerInfoResponse(
        version=version,
        engine=engine,
        languages=sorted(languages),
        limits=pb.Limits(
            unary_audio_bytes=limits.unary_audio_bytes,
            stream_audio_bytes=limits.stream_audio_bytes,
            stream_chunk_bytes=limits.stream_chunk_bytes,
            audio_seconds=int(limits.audio_seconds),
            transcript_chars=limits.transcript_chars,
        ),
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
