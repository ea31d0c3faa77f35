"""The job itself, free of gRPC: decode -> tokenise -> align -> assemble."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Final

from aligner_client.retiming import Cue, TranscriptFormat
from aligner_svc.audio.arriving.spool import Spool
from aligner_svc.audio.arriving.upload import open_live
from aligner_svc.audio.decode import AudioShorterError, Decoded, Decoder
from aligner_svc.config.limits import Limits
from aligner_svc.domain import Alignment, Caller, Clip, Stretch, Timing, Token, Warning, Word
from aligner_svc.engines.base import SHORT_SECONDS, Engine, LiveEngine, PhoneEngine
from aligner_svc.engines.loudness import unaligned
from aligner_svc.errors import InvalidArgumentError, UnsupportedError
from aligner_svc.pipeline import sounds
from aligner_svc.pipeline.checks import (
    LETTERS_A_WORD,
    check_score,
    check_seconds,
    empty,
    no_words,
    others,
    size,
    unreadable,
    unreadable_warning,
)
from aligner_svc.pipeline.following import Following
from aligner_svc.pipeline.job import Job, JobHooks, Observer, Stage, ignore
from aligner_svc.pipeline.subtitles import retimed, subtitles
from aligner_svc.pipeline.words import words_of
from aligner_svc.text import normalise_language
from aligner_svc.text.characters import check_characters, check_marks
from aligner_svc.text.speaking_rate import check_words, fit, least_seconds
from aligner_svc.workers import Buffer
from aligner_svc.workers.threads import off_loop

_NO_HOOKS: Final = JobHooks()

__all__ = ["Following", "Job", "JobHooks", "Observer", "Pipeline", "Stage", "ignore"]


class Pipeline:
    """Stateless: one instance serves all calls."""

    def __init__(
        self, decoder: Decoder, engine: Engine, limits: Limits, other_languages: Mapping[str, Collection[str]] | None = None
    ) -> None:
        """`other_languages`: those of other engines, by the engine's name."""
        self._decoder = decoder
        self._engine = engine
        self._limits = limits
        self._other_languages = other_languages or {}

    def language(self, tag: str) -> str:
        """The engine's name for a BCP-47 tag. Raises InvalidArgumentError, or UnsupportedError for another engine's language."""
        language = normalise_language(tag)
        if language in self._engine.languages:
            return language
        served = ", ".join(sorted(self._engine.languages))
        others = [name for name, languages in self._other_languages.items() if language in languages]
        if others:
            needed = " or ".join(others)
            message = f"this server runs {self._engine.name}, which aligns {served}; '{language}' needs the engine {needed}"
            raise UnsupportedError("LANGUAGE_UNSUPPORTED", message, field="config.language")
        message = f"'{language}' is a language of no engine; this server runs {self._engine.name}, which aligns {served}"
        raise InvalidArgumentError("LANGUAGE_UNKNOWN", message, field="config.language")

    def check_transcript(self, characters: int) -> None:
        """Raises InvalidArgumentError for more code points than the limit."""
        most = self._limits.transcript_chars
        if characters > most:
            message = f"the transcript has {characters} characters; at most {most} are accepted"
            raise InvalidArgumentError("TRANSCRIPT_TOO_LONG", message, field="config.transcript")

    async def align(
        self, job: Job, audio: Buffer, caller: Caller, observe: Observer = ignore, hooks: JobHooks = _NO_HOOKS
    ) -> Alignment:
        """Word times of one recording. Raises AlignerError, nothing else that is not a bug or comes from `hooks`."""
        began = time.perf_counter()
        language = self.language(job.language)
        phone_set = sounds.phone_set(job, self._engine, language)
        pronunciations = sounds.given(job, self._engine, language)
        self.check_transcript(len(job.transcript))  # of a subtitle file all of it, which is searched for cues
        file = await off_loop(subtitles, job, words=len(job.transcript) // LETTERS_A_WORD)
        tokens = await self._tokens(job.transcript if file is None else file.spoken, language, hooks, pronunciations)
        spoken = [token for token in tokens if token.spoken]
        observe(Stage.DECODING, 0.0, 0.0)
        try:
            decoded = await self._decoder.decode(
                audio,
                job.encoding,
                job.sample_rate_hz,
                job.channels,
                track=job.track,
                client=caller.client,
                on_long=hooks.prolong,
                least_seconds=self._least_seconds(spoken, language),
            )
        except AudioShorterError as shorter:
            check_seconds(shorter.seconds)
            self._fit(spoken, shorter.seconds, language)
            raise
        del audio  # an upload may be hundreds of MB, and the engine does not need it
        seconds = decoded.clip.seconds
        check_seconds(seconds)
        await hooks.decoded(decoded)  # before the audio is found not to fit: its decoding is used
        try:
            dense = self._fit(spoken, seconds, language)
        except InvalidArgumentError:
            _check_whole(decoded)
            raise
        if seconds > SHORT_SECONDS:
            await hooks.prolong()
        observe(Stage.ALIGNING, 0.0, seconds)
        engine = self._engine
        align = partial(engine.align, phones=True) if phone_set and isinstance(engine, PhoneEngine) else engine.align
        result = await align(decoded.clip, spoken, language, caller, lambda done: observe(Stage.ALIGNING, done, seconds))
        check_score(result.match_score, job.min_match_score)
        words = await off_loop(words_of, tokens, result, words=len(tokens))
        stretches = await off_loop(_unaligned, decoded.clip, words, size=decoded.clip.samples.nbytes)
        cues: Sequence[Cue] = ()
        if file is not None:
            words, cues = await off_loop(retimed, file, words, decoded.start, job.retiming, words=len(words))
        timing = Timing(
            queue=decoded.queued + result.queued,
            decode=decoded.busy,
            align=result.busy,
            total=time.perf_counter() - began,
        )
        return Alignment(
            words=words,
            audio_seconds=seconds,
            engine=self._engine.name,
            language=language,
            match_score=result.match_score,
            warnings=(
                *decoded.warnings,
                *dense,
                *others(result.warnings, dense, decoded.peak),
                *unreadable_warning(unreadable(tokens)),
            ),
            timing=timing,
            unaligned=stretches,
            cues=cues,
            phone_set=phone_set,
            audio_start=decoded.start,
        )

    async def follow(self, job: Job, head: Buffer, caller: Caller, *, long: bool = False) -> Following | None:
        """The alignment, while it arrives, of an upload that begins with `head`, which is not used up; None: it must be complete.

        `long`: it has much already, or takes long to come.

        Raises NotEnoughError, and InvalidArgumentError as `align`.
        """
        if not isinstance(self._engine, LiveEngine) or job.track > 1 or job.format is not TranscriptFormat.PLAIN or job.phones:
            return None
        decoding = await open_live(
            self._decoder, head, job.encoding, job.sample_rate_hz, job.channels, client=caller.client, long=long
        )
        if decoding is None:
            return None
        language = self.language(job.language)
        return Following(job, language, caller, engine=self._engine, decoding=decoding, limits=self._limits)

    def spool(self) -> Spool:
        """A file for an upload that may be needed again."""
        return Spool(self._decoder.spool)

    async def _tokens(self, transcript: str, language: str, hooks: JobHooks, pronunciations: sounds.Given) -> Sequence[Token]:
        self.check_transcript(len(transcript))
        if not transcript.strip():
            raise empty()
        await hooks.text(len(transcript))
        words = len(transcript) // LETTERS_A_WORD
        await off_loop(check_characters, transcript, words=words)
        await off_loop(check_marks, transcript, words=words)
        tokens = sounds.pronounced(await self._engine.tokenise(transcript, language), pronunciations)
        check_words(len(tokens), self._limits.transcript_words)
        if not any(token.spoken for token in tokens):
            raise no_words(bool(tokens) and all(token.skipped for token in tokens), language)
        return tokens

    def _least_seconds(self, spoken: Sequence[Token], language: str) -> float:
        """Seconds that the audio must last not to be refused by `_fit`."""
        return least_seconds(*size(spoken), language) if self._limits.transcript_dense == "refuse" else 0.0

    def _fit(self, spoken: Sequence[Token], seconds: float, language: str) -> tuple[Warning, ...]:
        warning = fit(*size(spoken), seconds, language, self._limits.transcript_dense)
        return () if warning is None else (warning,)


def _unaligned(clip: Clip, words: Sequence[Word]) -> list[Stretch]:
    found = [Stretch(word.start, word.end) for word in words if word.end > word.start]
    return unaligned(clip.samples, found)


def _check_whole(decoded: Decoded) -> None:
    """Raise InvalidArgumentError (AUDIO_CUT_SHORT) for a part of a recording, which may well be too short for its transcript."""
    lost = [warning for warning in decoded.warnings if warning.code in {"AUDIO_TRUNCATED", "AUDIO_DAMAGED"}]
    if lost:
        message = (
            f"only {decoded.clip.seconds:.1f} s of the audio could be decoded, too little for the transcript: {lost[0].message}"
        )
        raise InvalidArgumentError("AUDIO_CUT_SHORT", message, field="audio")
