"""The job itself, free of gRPC: decode -> tokenise -> align -> assemble."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
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
from aligner_svc.pipeline.channels import AlignedPart, ReadTranscript, merged, of_channel, summaries
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
        # Of a subtitle file all of it, which is searched for cues.
        self.check_transcript(sum(len(text) for _, text in job.transcripts))
        file = await off_loop(subtitles, job, words=len(job.transcript) // LETTERS_A_WORD)
        parts = await self._read(job if file is None else replace(job, transcript=file.spoken), language, hooks, pronunciations)
        decoded = await self._decode(job, audio, parts, language, caller=caller, observe=observe, hooks=hooks)
        del audio  # an upload may be hundreds of MB, and the engine does not need it
        first = decoded[0]
        seconds = sum(one.clip.seconds for one in decoded)
        dense = [self._checked_fit(part, one, language) for part, one in zip(parts, decoded, strict=True)]
        if seconds > SHORT_SECONDS:
            await hooks.prolong()
        observe(Stage.ALIGNING, 0.0, first.clip.seconds)
        engine = self._engine
        align = partial(engine.align, phones=True) if phone_set and isinstance(engine, PhoneEngine) else engine.align
        found: list[AlignedPart] = []
        queued = busy = 0.0
        for part, one, known in zip(parts, decoded, dense, strict=True):

            def progress(aligned: float, before: float = len(found) * first.clip.seconds) -> None:
                observe(Stage.ALIGNING, (before + aligned) / len(parts), first.clip.seconds)

            result = await align(one.clip, part.spoken, language, caller, progress)
            with of_channel(part.channel):
                check_score(result.match_score, job.min_match_score)
            words = await off_loop(words_of, part.tokens, result, words=len(part.tokens))
            stretches = await off_loop(_unaligned, one.clip, words, size=one.clip.samples.nbytes)
            warnings = (*known, *others(result.warnings, known, one.peak), *unreadable_warning(unreadable(part.tokens)))
            found.append(AlignedPart(part.channel, words, result.match_score, warnings, stretches))
            queued, busy = queued + result.queued, busy + result.busy
        whole = await off_loop(merged, found, words=sum(len(part.tokens) for part in parts))
        cues: Sequence[Cue] = ()
        if file is not None:
            found_words, cues = await off_loop(retimed, file, whole.words, first.start, job.retiming, words=len(whole.words))
            whole = replace(whole, words=found_words)
        timing = Timing(
            queue=sum(one.queued for one in decoded) + queued,
            decode=sum(one.busy for one in decoded),
            align=busy,
            total=time.perf_counter() - began,
        )
        return Alignment(
            words=whole.words,
            audio_seconds=first.clip.seconds,
            engine=self._engine.name,
            language=language,
            match_score=whole.match_score,
            warnings=(*first.warnings, *whole.warnings),
            timing=timing,
            unaligned=whole.unaligned,
            cues=cues,
            phone_set=phone_set,
            channels=summaries(found),
            audio_start=first.start,
        )

    async def follow(self, job: Job, head: Buffer, caller: Caller, *, long: bool = False) -> Following | None:
        """The alignment, while it arrives, of an upload that begins with `head`, which is not used up; None: it must be complete.

        `long`: it has much already, or takes long to come.

        Raises NotEnoughError, and InvalidArgumentError as `align`.
        """
        plain = job.format is TranscriptFormat.PLAIN and not job.phones and not job.channel_transcripts
        if not isinstance(self._engine, LiveEngine) or job.track > 1 or not plain:
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

    async def _read(self, job: Job, language: str, hooks: JobHooks, pronunciations: sounds.Given) -> list[ReadTranscript]:
        """The transcripts of a job; nothing is charged for before all are known not to be empty."""
        characters = sum(len(text) for _, text in job.transcripts)
        self.check_transcript(characters)
        for channel, text in job.transcripts:
            if not text.strip():
                with of_channel(channel):
                    raise empty()
        await hooks.text(characters)
        parts: list[ReadTranscript] = []
        for channel, text in job.transcripts:
            with of_channel(channel):
                tokens = await self._tokens(text, language, pronunciations)
            parts.append(ReadTranscript(channel, tokens, [token for token in tokens if token.spoken]))
            check_words(sum(len(part.tokens) for part in parts), self._limits.transcript_words)
        return parts

    async def _tokens(self, transcript: str, language: str, pronunciations: sounds.Given) -> Sequence[Token]:
        words = len(transcript) // LETTERS_A_WORD
        await off_loop(check_characters, transcript, words=words)
        await off_loop(check_marks, transcript, words=words)
        tokens = sounds.pronounced(await self._engine.tokenise(transcript, language), pronunciations)
        check_words(len(tokens), self._limits.transcript_words)
        if not any(token.spoken for token in tokens):
            raise no_words(bool(tokens) and all(token.skipped for token in tokens), language)
        return tokens

    async def _decode(
        self,
        job: Job,
        audio: Buffer,
        parts: Sequence[ReadTranscript],
        language: str,
        *,
        caller: Caller,
        observe: Observer,
        hooks: JobHooks,
    ) -> list[Decoded]:
        """The clip of each part, reported to `hooks` before it is found not to fit: its decoding is used.

        A channel takes a pass of its own over the file, a fiftieth of what its alignment takes.
        """
        least = max(self._least_seconds(part.spoken, language) for part in parts)
        decoded: list[Decoded] = []
        for part in parts:
            observe(Stage.DECODING, 0.0, 0.0)
            try:
                one = await self._decoder.decode(
                    audio,
                    job.encoding,
                    job.sample_rate_hz,
                    job.channels,
                    track=job.track,
                    channel=part.channel,
                    of=len(parts),
                    client=caller.client,
                    on_long=hooks.prolong,
                    least_seconds=least,
                )
            except AudioShorterError as shorter:
                check_seconds(shorter.seconds)
                for each in parts:
                    with of_channel(each.channel):
                        self._fit(each.spoken, shorter.seconds, language)
                raise
            check_seconds(one.clip.seconds)
            await hooks.decoded(one)
            decoded.append(one)
        return decoded

    def _checked_fit(self, part: ReadTranscript, decoded: Decoded, language: str) -> tuple[Warning, ...]:
        """A warning of a transcript that is dense. Raises InvalidArgumentError for one that cannot be said in the audio."""
        try:
            with of_channel(part.channel):
                return self._fit(part.spoken, decoded.clip.seconds, language)
        except InvalidArgumentError:
            _check_whole(decoded)
            raise

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
