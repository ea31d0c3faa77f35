"""A job whose audio and transcript arrive while it is done; nothing of either is kept for longer than it is needed."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import numpy as np

from aligner_svc.audio.arriving.samples import Floats, LiveDecoding
from aligner_svc.audio.level import RunningLevel
from aligner_svc.config.limits import Limits
from aligner_svc.domain import SAMPLE_RATE, Alignment, Caller, Stretch, Timing, Word
from aligner_svc.engines.base import LiveEngine, Span
from aligner_svc.engines.live import LiveAudio, LiveText
from aligner_svc.engines.loudness import unaligned_levels
from aligner_svc.pipeline.checks import (
    check_score,
    check_seconds,
    others,
    unreadable_warning,
)
from aligner_svc.pipeline.job import Job
from aligner_svc.pipeline.script import Script
from aligner_svc.pipeline.sounds import given
from aligner_svc.text.speaking_rate import fit
from aligner_svc.workers import Buffer

_AHEAD: Final = 45.0
"""Seconds of audio that are decoded ahead of the engine: more than a window, so that it never waits for a sender that is fast."""
_AHEAD_OF_TEXT: Final = 75.0
"""The same while the engine waits for text: more than it waits for. What comes then is kept as it came until there is some."""
_AT_ONCE: Final = 30.0
"""Seconds of audio after which the engine begins."""
_LIVE_AFTER: Final = 1.0
"""Seconds from the first audio after which it begins with less: what has not ended by then is being spoken."""

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
        self._script = Script(engine, language, limits, given(job, engine, language))
        self._text = LiveText(self._audio, self._script.more)
        self._begin = asyncio.Event()
        self._ended_at = 0.0
        self._abandoned = False
        self._coming: deque[tuple[int, AsyncIterator[Floats]]] = deque()  # bytes, and what they are decoded to
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def seconds(self) -> float:
        """Of audio so far."""
        return self._audio.length / SAMPLE_RATE

    @property
    def released(self) -> float:
        """Share of the upload so far that is not kept in memory, as samples or as it came."""
        if self._decoding.on_disk:
            return 1.0
        if not self._audio.length or not self._bytes:
            return 0.0
        decoded = 1 - sum(size for size, _ in self._coming) / self._bytes
        return decoded * self._audio.released / self._audio.length

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
        self._audio.close()  # wakes `audio`

    async def audio(self, chunk: Buffer) -> None:
        """More audio; waits while the engine is behind, but not while that waits for text."""
        if self._abandoned:
            return
        if self._timer is None and len(chunk):
            self._timer = asyncio.get_running_loop().call_later(_LIVE_AFTER, self._begin.set)
        self._bytes += len(chunk)
        self._coming.append((len(chunk), self._decoding.add(chunk)))
        await self._hear()

    async def text(self, piece: str) -> None:
        """More of the transcript; waits while the engine is behind."""
        self._script.add(piece)
        self._text.notify()
        await self._hear()

    async def end(self) -> None:
        """There is no more of either."""
        self._coming.append((0, self._decoding.finish()))
        await self._hear()
        if self._coming:  # the engine waits for text, and there is no more
            self._script.ended = True
            self._text.notify(ended=True)
            await self._hear()
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
        self._audio.close()  # the rest, for which there are no words, is only listened to
        await self._audio.reach(sys.maxsize)
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

    async def _hear(self) -> None:
        """Decode what has come, part by part, each when there is room for it."""
        while self._coming and not self._abandoned:
            if self._audio.text_is_short and self._audio.kept >= _AHEAD_OF_TEXT:
                return
            samples = await anext(self._coming[0][1], None)
            if samples is None:
                self._coming.popleft()
                continue
            self._append(samples)
            if self.seconds >= _AT_ONCE:
                self._begin.set()
            await self._audio.room(_AHEAD)

    def _append(self, samples: Floats, *, last: bool = False) -> None:
        for block, gain in self._level.add(samples, last=last):
            self._audio.append(block, gain)
