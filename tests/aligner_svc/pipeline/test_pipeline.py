"""What the decoder noticed reaches the caller, and a transcript is not blamed for audio that is not there."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from aligner_svc.audio.decode import Decoded, Decoder
from aligner_svc.config.limits import Limits
from aligner_svc.domain import SAMPLE_RATE, Caller, Clip, Warning
from aligner_svc.engines.base import EngineResult
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.pipeline import Job, Pipeline
from tests.kit.scripted_engine import ScriptedEngine

LONG = " ".join(["word"] * 200)


class FixedDecoder:
    """Gives the same for every upload."""

    def __init__(self, seconds: float, *codes: str, start: float = 0.0, peak: float = 1.0) -> None:
        clip = Clip(np.zeros(int(seconds * SAMPLE_RATE), np.int16))
        self._decoded = Decoded(clip, tuple(Warning(code, f"({code})") for code in codes), "wav", 0.0, 0.0, start, peak)
        self.track: int | None = None

    async def decode(self, *_: object, track: int, **__: object) -> Decoded:
        self.track = track
        return self._decoded


class MismatchedEngine(ScriptedEngine):
    async def align(self, *args: Any) -> EngineResult:
        result = await super().align(*args)
        return EngineResult(result.spans, 0.0, (Warning("TRANSCRIPT_MISMATCH", ""), Warning("WORDS_NOT_FOUND", "")))


def pipeline(decoder: FixedDecoder, engine: ScriptedEngine | None = None) -> Pipeline:
    return Pipeline(cast("Decoder", decoder), engine or ScriptedEngine(), Limits())


async def test_the_track_reaches_the_decoder_and_its_start_the_caller() -> None:
    decoder = FixedDecoder(3.0, "AUDIO_SEVERAL_TRACKS", start=1.5)
    alignment = await pipeline(decoder).align(Job("one two", "en", track=2), b"", Caller())
    assert (decoder.track, alignment.audio_start) == (2, 1.5)
    assert [warning.code for warning in alignment.warnings] == ["AUDIO_SEVERAL_TRACKS"]


@pytest.mark.parametrize(
    ("peak", "engine", "warned"),
    [
        (0.0, MismatchedEngine(), ["AUDIO_SILENT", "WORDS_NOT_FOUND"]),
        (3e-5, MismatchedEngine(), ["AUDIO_SILENT", "WORDS_NOT_FOUND"]),
        (0.01, MismatchedEngine(), ["TRANSCRIPT_MISMATCH", "WORDS_NOT_FOUND"]),
        (3e-5, ScriptedEngine(), []),
    ],
    ids=["silence", "the last bit", "quiet", "words in the last bit"],
)
async def test_silence_is_not_called_a_wrong_transcript(peak: float, engine: ScriptedEngine, warned: list[str]) -> None:
    alignment = await pipeline(FixedDecoder(3.0, peak=peak), engine).align(Job("one two", "en"), b"", Caller())
    assert [warning.code for warning in alignment.warnings] == warned


@pytest.mark.parametrize(
    ("codes", "reason", "field"),
    [
        ((), "TRANSCRIPT_TOO_DENSE", "config.transcript"),
        (("AUDIO_SEVERAL_TRACKS",), "TRANSCRIPT_TOO_DENSE", "config.transcript"),
        (("AUDIO_TRUNCATED",), "AUDIO_CUT_SHORT", "audio"),
        (("AUDIO_SEVERAL_TRACKS", "AUDIO_DAMAGED"), "AUDIO_CUT_SHORT", "audio"),
    ],
)
async def test_a_transcript_is_not_too_long_for_a_part_of_its_audio(codes: tuple[str, ...], reason: str, field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await pipeline(FixedDecoder(3.0, *codes)).align(Job(LONG, "en"), b"", Caller())
    assert (caught.value.reason, caught.value.violations[0].field) == (reason, field)
