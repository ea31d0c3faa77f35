"""A job whose audio and transcript arrive while it is done; nothing of either is kept for longer than it is needed."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import numpy as np

from aligner_svc.audio.arriving.samples import Floats, LiveDecoding
from aligner_svc.audio.level import RunningLevel
from aligner_svc.config.limits import Limits
from aligner_svc.domain import SAMPLE_RATE, Alignment, Caller, Stretch, Timing, Token, Word, WordStatus
from aligner_svc.engines.base import LiveEngine, Span
from aligner_svc.engines.live import LiveAudio, LiveText
from aligner_svc.engines.loudness import unaligned_levels
from aligner_svc.pipeline.checks import (
    LETTERS_A_WORD,
    check_score,
    check_seconds,
    empty,
    no_words,
    others,
    unreadable,
    unreadable_warning,
)
from aligner_svc.pipeline.job import Job
from aligner_svc.pipeline.sounds import Given, given, pronounced
from aligner_svc.pipeline.words import word_of
from aligner_svc.text.characters import check_marks
from aligner_svc.text.speaking_rate import check_words, fit
from aligner_svc.workers import Buffer
from aligner_svc.workers.threads import off_loop

_AHEAD: Final = 45.0
"""Seconds of audio that are decoded ahead of the engine: more than a window, so that it never waits for a sender that is fast."""
_AT_ONCE: Final = 30.0
"""Seconds of audio after which the engine begins."""
_LIVE_AFTER: Final = 1.0
"""Seconds from the first audio after which it begins with less: what has not ended by then is being spoken."""
_SENTENCE_ENDS: Final = (".", "!", "?")

OnWords = Callable[[Sequence[Word]], None]
"""Called on the event loop with the next words, in order, once they cannot change any more. Must not block."""


class Following:
    """One recording. `audio` and `text` as they come, then `end`; `run` meanwhile."""

    def __init__(
        self, job: Job, language: str, caller: Caller, *, engine: LiveEngine, decoding: LiveDecoding, limits: Limits
    ) -> None:
        self.aligned = 0.0
        """Seconds of audio whose words are final."""
        self._engine = engine
        self._limits = limits
        self._job = job
        self._language = language
        self._decoding = decoding
        self._caller = caller
        self._audio = LiveAudio()
        self._level = RunningLevel()
        self._script = _Script(engine, language, limits, given(job, engine, language))
        self._text = LiveText(self._audio, self._script.more)
        self._begin = asyncio.Event()
        self._ended_at = 0.0
        self._abandoned = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def seconds(self) -> float:
        """Of audio so far."""
        return self._audio.length / SAMPLE_RATE

    @property
    def released(self) -> float:
        """Share of the audio so far that is not kept in memory."""
        if self._decoding.on_disk:
            return 1.0
        return self._audio.released / self._audio.length if self._audio.length else 0.0

    @property
    def container(self) -> str:
        """As in audio.decode.Decoded."""
        return self._decoding.container

    @property
    def words(self) -> int:
        """Of the transcript so far."""
        return self._script.count

    @property
    def ended(self) -> bool:
        """Whether all has come."""
        return self._text.ended

    def abandon(self) -> None:
        """It has failed: what still comes is not decoded."""
        self._abandoned = True
        self._audio.text_is_short = True  # wakes `audio`
        self._audio.release(0)

    async def audio(self, chunk: Buffer) -> None:
        """More audio; waits while the engine is behind."""
        if self._abandoned:
            return
        if self._timer is None and len(chunk):
            self._timer = asyncio.get_running_loop().call_later(_LIVE_AFTER, self._begin.set)
        await self._hear(self._decoding.add(chunk))

    def text(self, piece: str) -> None:
        """More of the transcript."""
        self._script.add(piece)
        self._text.notify()

    async def end(self) -> None:
        """There is no more of either."""
        await self._hear(self._decoding.finish())
        self._append(np.zeros(0, np.float32), last=True)
        check_seconds(self.seconds)
        self._ended_at = time.perf_counter()
        self._script.ended = True
        self._audio.end()
        self._text.notify(ended=True)
        self._begin.set()

    async def begun(self) -> None:
        """Returns when the engine may begin: the upload has ended, or is long, or is being spoken."""
        await self._begin.wait()

    async def run(self, on_words: OnWords, on_progress: Callable[[], None]) -> Alignment:
        """The alignment without its words, which `on_words` has had. Raises AlignerError."""
        found: list[Stretch] = []

        def words(spans: Sequence[Span]) -> None:
            ready = self._script.words(spans)
            found.extend(Stretch(word.start, word.end) for word in ready if word.end > word.start)
            on_words(ready)

        def progress(aligned: float) -> None:
            self.aligned = aligned
            on_progress()

        result = await self._engine.follow(
            self._audio, self._text, self._language, self._caller, on_spans=words, progress=progress
        )
        on_words(self._script.words(()))
        self._script.check()
        dense = fit(self._script.spoken, self._script.letters, self.seconds, self._language, self._limits.transcript_dense)
        check_score(result.match_score, self._job.min_match_score)
        decoding = self._decoding
        said = () if dense is None else (dense,)
        return Alignment(
            words=(),
            audio_seconds=self.seconds,
            engine=self._engine.name,
            language=self._language,
            match_score=result.match_score,
            warnings=(
                *decoding.warnings,
                *said,
                *others(result.warnings, said, self._level.peak),
                *unreadable_warning(self._script.unreadable),
            ),
            timing=Timing(
                queue=decoding.queued + result.queued,
                decode=decoding.busy,
                align=result.busy,
                total=time.perf_counter() - self._ended_at,
            ),
            audio_start=decoding.start,
            unaligned=await asyncio.to_thread(unaligned_levels, self._audio.levels.copy(), found),
        )

    def close(self) -> None:
        """It is over, whatever came of it. Idempotent."""
        self._decoding.close()
        if self._timer is not None:
            self._timer.cancel()

    async def _hear(self, pieces: AsyncIterator[Floats]) -> None:
        """Hand on each piece, and wait for room before the next is decoded."""
        async for samples in pieces:
            if self._abandoned:
                return
            self._append(samples)
            if self.seconds >= _AT_ONCE:
                self._begin.set()
            await self._audio.room(_AHEAD)

    def _append(self, samples: Floats, *, last: bool = False) -> None:
        for block, gain in self._level.add(samples, last=last):
            self._audio.append(block, gain)


class _Script:
    """The transcript as it comes: tokens for the engine, and words for the caller.

    What has come when the engine asks for more is split at once, so that a text that comes first is read as a whole. Its last
    word may go on in the next piece: it waits for that, unless a sentence ends with it.
    """

    def __init__(self, engine: LiveEngine, language: str, limits: Limits, pronunciations: Given = MappingProxyType({})) -> None:
        self.ended = False
        self._pronunciations = pronunciations
        self.count = 0
        """Words in all."""
        self.spoken = self.letters = self.unreadable = 0
        """Words and letters that are said, and words that cannot be read."""
        self._engine = engine
        self._language = language
        self._limits = limits
        self._text = ""  # not split yet, or with a last word that may go on
        self._base = 0  # characters before it
        self._held: tuple[str, Sequence[Token]] = "", ()  # its beginning that was split, and the tokens of the last word there
        self._tokens: deque[Token] = deque()
        self._marks = 0
        self._at = 0.0
        self._speaker = ""

    def add(self, text: str) -> None:
        self._text += text

    async def more(self) -> Sequence[Token]:
        """The next tokens that have something spoken. Nothing is lost if it is cancelled."""
        (held, tokens), ended = self._held, self.ended
        if len(self._text) > len(held) and not self._text[len(held)].isspace():
            held, tokens = "", ()  # the last word went on
        elif len(self._text) == len(held) and not (ended and tokens):
            return ()
        rest = self._text[len(held) :]
        split: Sequence[Token] = ()
        cut = len(rest)
        if rest.strip():
            await off_loop(check_marks, rest, words=len(rest) // LETTERS_A_WORD)
            split = pronounced(await self._engine.tokenise(rest, self._language), self._pronunciations)
            if not (ended or rest[-1].isspace() or rest.endswith(_SENTENCE_ENDS)):
                cut -= len(rest.rsplit(None, 1)[-1])
                cut = min([cut, *(token.char_start for token in split if token.char_start < cut < token.char_end)])
        ready = [_moved(token, self._base) for token in tokens]
        ready += [_moved(token, self._base + len(held)) for token in split if token.char_end <= cut]
        self._held = rest[cut:], [_moved(token, -cut) for token in split if token.char_end > cut]
        self._text, self._base = self._text[len(held) + cut :], self._base + len(held) + cut
        return self._take(ready)

    def words(self, spans: Sequence[Span]) -> list[Word]:
        """The words of the next spoken tokens, with what is not spoken before them; without spans all that is left."""
        words: list[Word] = []
        for span in spans:
            while not self._tokens[0].spoken:
                words.append(self._unspoken())
            words.append(word_of(self._tokens.popleft(), span, self._speaker))
            self._at = span.end
        while self._tokens and (not spans or not self._tokens[0].spoken):
            words.append(self._unspoken())
        return words

    def check(self) -> None:
        """Raises InvalidArgumentError for a text without a spoken word."""
        if not self.count:
            raise empty()
        if not self.spoken:
            raise no_words(self._marks == self.count, self._language)

    def _take(self, tokens: Sequence[Token]) -> Sequence[Token]:
        self.count += len(tokens)
        check_words(self.count, self._limits.transcript_words)
        self._marks += sum(token.skipped for token in tokens)
        self.unreadable += unreadable(tokens)
        spoken = [token for token in tokens if token.spoken]
        self.spoken += sum(len(token.spoken) for token in spoken)
        self.letters += sum(len(word) for token in spoken for word in token.spoken)
        self._tokens.extend(tokens)
        return spoken

    def _unspoken(self) -> Word:
        token = self._tokens.popleft()
        absent = WordStatus.SKIPPED if token.skipped else WordStatus.NOT_FOUND
        self._speaker = token.speaker or self._speaker
        return word_of(token, Span(self._at, self._at, 0.0, absent), self._speaker)


def _moved(token: Token, characters: int) -> Token:
    """The token in a text that begins so much earlier."""
    return replace(token, char_start=token.char_start + characters, char_end=token.char_end + characters) if characters else token
