"""A transcript that is a subtitle file: its text is aligned, and its cues get their times from the words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aligner_client.retiming import Cue, Retiming, SubtitleError, SubtitleFile, TranscriptFormat, retime
from aligner_svc.domain import Word
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.pipeline.job import Job
from aligner_svc.text.characters import check_characters


def subtitles(job: Job) -> SubtitleFile | None:
    """The file; None for a plain transcript. Raises InvalidArgumentError (SUBTITLES_INVALID)."""
    if job.format is TranscriptFormat.PLAIN or not job.transcript.strip():
        return None
    check_characters(job.transcript)
    try:
        return SubtitleFile.of(job.transcript, job.format)
    except SubtitleError as error:
        raise InvalidArgumentError("SUBTITLES_INVALID", str(error), field="config.transcript") from None


def retimed(file: SubtitleFile, words: Sequence[Word], audio_start: float, options: Retiming) -> tuple[list[Word], list[Cue]]:
    """The words with offsets in the file, and its cues. `words`: of `file.spoken`; `audio_start` in seconds."""
    places = file.places()
    moved = [
        replace(word, char_start=places.offset(word.char_start), char_end=places.offset(word.char_end - 1) + 1) for word in words
    ]
    return moved, retime(file, words, audio_start, options)
