"""The job itself, free of gRPC: decode -> tokenise -> align -> assemble."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from aligner_svc.audio.decode import Decoder
from aligner_svc.audio.encoding import Encoding
from aligner_svc.config import Limits
from aligner_svc.domain import Alignment, Timing, Token, Word
from aligner_svc.engines.base import Engine, EngineResult
from aligner_svc.errors import InvalidArgumentError, UnsupportedError
from aligner_svc.text import normalise_language, tokenise
from aligner_svc.workers import Buffer

QWEN_LANGUAGES = frozenset({"zh", "en", "yue", "fr", "de", "it", "ja", "ko", "pt", "ru", "es"})
"""What Qwen3-ForcedAligner aligns: the widest set any engine of this service has."""
_SHORTEST_SECONDS = 0.06
"""The shortest words ("a", "I") last this long in fluent speech; less audio holds none."""
_INLINE_CHARS = 4_000
"""Longer transcripts are cut into words in a thread, so that the event loop is never held for more than a few ms."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a caller asks for, but for the audio. Headerless encodings need a rate; 0 channels mean 1."""

    transcript: str
    language: str
    encoding: Encoding = Encoding.CONTAINER
    sample_rate_hz: int = 0
    channels: int = 0


class Stage(Enum):
    DECODING = "DECODING"
    ALIGNING = "ALIGNING"


Observer = Callable[[Stage, float, float], None]
"""Told the stage, the seconds aligned and the seconds in all (0 while unknown). Must not block."""


def _ignore(stage: Stage, aligned: float, total: float) -> None: ...


class Pipeline:
    def __init__(self, decoder: Decoder, engine: Engine, limits: Limits) -> None:
        self._decoder = decoder
        self._engine = engine
        self._limits = limits

    def language(self, tag: str) -> str:
        """The engine's name for a BCP-47 tag. Raises InvalidArgumentError, or UnsupportedError for another engine's language."""
        language = normalise_language(tag)
        if language in self._engine.languages:
            return language
        served = ", ".join(sorted(self._engine.languages))
        if language in QWEN_LANGUAGES:
            message = (
                f"this server runs {self._engine.name}, which aligns {served}; '{language}' needs the engine Qwen3-ForcedAligner"
            )
            raise UnsupportedError("LANGUAGE_UNSUPPORTED", message, field="config.language")
        known = ", ".join(sorted(QWEN_LANGUAGES))
        raise InvalidArgumentError(
            "LANGUAGE_UNKNOWN", f"'{language}' is not a language aligned here: {known}", field="config.language"
        )

    def check_transcript(self, characters: int) -> None:
        """Raises InvalidArgumentError for more code points than the limit."""
        most = self._limits.transcript_chars
        if characters > most:
            message = f"the transcript has {characters} characters; at most {most} are accepted"
            raise InvalidArgumentError("TRANSCRIPT_TOO_LONG", message, field="config.transcript")

    async def align(self, job: Job, audio: Buffer, observe: Observer = _ignore) -> Alignment:
        """Word times of one recording. Raises AlignerError, nothing else that is not a bug."""
        began = time.perf_counter()
        language = self.language(job.language)
        tokens = await self._tokens(job.transcript, language)
        observe(Stage.DECODING, 0.0, 0.0)
        decoded = await self._decoder.decode(audio, job.encoding, job.sample_rate_hz, job.channels)
        del audio  # an upload may be hundreds of MB and the engine needs none of it
        seconds = decoded.clip.seconds
        if seconds < _SHORTEST_SECONDS:
            message = f"the audio lasts {seconds * 1000:.0f} ms; a word needs {_SHORTEST_SECONDS * 1000:.0f} ms at least"
            raise InvalidArgumentError("AUDIO_TOO_SHORT", message, field="audio")
        observe(Stage.ALIGNING, 0.0, seconds)
        result = await self._engine.align(decoded.clip, tokens, language, lambda done: observe(Stage.ALIGNING, done, seconds))
        timing = Timing(
            queue=decoded.queued + result.queued,
            decode=decoded.busy,
            align=result.busy,
            total=time.perf_counter() - began,
        )
        return Alignment(
            words=_words(tokens, result),
            audio_seconds=seconds,
            engine=self._engine.name,
            language=language,
            match_score=result.match_score,
            warnings=(*decoded.warnings, *result.warnings),
            timing=timing,
        )

    async def _tokens(self, transcript: str, language: str) -> Sequence[Token]:
        self.check_transcript(len(transcript))
        if not transcript.strip():
            raise InvalidArgumentError("TRANSCRIPT_EMPTY", "the transcript is empty", field="config.transcript")
        if len(transcript) <= _INLINE_CHARS:
            tokens = tokenise(transcript, language)
        else:
            tokens = await asyncio.to_thread(tokenise, transcript, language)
        if not tokens:
            raise InvalidArgumentError("TRANSCRIPT_NO_WORDS", "the transcript holds no words", field="config.transcript")
        return tokens


def _words(tokens: Sequence[Token], result: EngineResult) -> list[Word]:
    return [
        Word(token.text, span.start, span.end, span.confidence, span.status, token.char_start, token.char_end)
        for token, span in zip(tokens, result.spans, strict=True)
    ]
