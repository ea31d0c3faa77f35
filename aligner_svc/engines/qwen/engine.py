"""Qwen3-ForcedAligner as an engine: splits words, makes prompts, has batches computed by the processes of the devices."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from aligner_svc.config import Settings
from aligner_svc.config.engine import EngineSettings, QwenSettings
from aligner_svc.domain import SAMPLE_RATE, Caller, Clip, ProgressSink, Token
from aligner_svc.engines import refusals
from aligner_svc.engines.base import Capacity, EngineReport, EngineResult, OnFailed, OnSpans
from aligner_svc.engines.batch_report import BatchWatch
from aligner_svc.engines.batching import Batcher
from aligner_svc.engines.live import LiveAudio, LiveText
from aligner_svc.engines.qwen.devices.pool import Backend, Devices
from aligner_svc.engines.qwen.devices.wire import Item, batch_rows
from aligner_svc.engines.qwen.outcome import MAX_SECONDS, assemble
from aligner_svc.engines.qwen.prompt import Prompt, TooManyRowsError
from aligner_svc.engines.qwen.recording import CUT, LIVE_CUT, LiveRecording, LongRecording
from aligner_svc.engines.qwen.timestamps import TimestampSlots
from aligner_svc.engines.self_test import check_split
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.text import model_words as words
from aligner_svc.text.speaking_rate import check_rate
from aligner_svc.text.transcript import words as transcript_words
from aligner_svc.workers import WorkerDiedError, WorkerTimeoutError
from aligner_svc.workers.fair_queue import TokenBudget

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_MAX_JAPANESE = 6000
"""Characters of a transcript, some 20 minutes: its tagger keeps 26 kB for each of them."""
_AHEAD = 20.0
"""Seconds of audio beyond a window that are decoded meanwhile."""
_THREADS = 2
"""Split transcripts, make prompts and answers: milliseconds for a long one."""


def build(settings: Settings, on_failed: OnFailed, watch: BatchWatch | None) -> QwenEngine:
    """See engines.base.Build."""
    return QwenEngine(settings.engine, settings.qwen, on_failed, watch)


class QwenEngine:
    """Engine (see engines/base.py) for 11 languages, on a GPU or on a CPU."""

    name = f"qwen3-forced-aligner-{version('qwen-asr')}"
    languages = words.LANGUAGES
    max_seconds = None

    def __init__(
        self,
        engine: EngineSettings,
        qwen: QwenSettings,
        on_failed: OnFailed | None = None,
        watch: BatchWatch | None = None,
        devices: Backend | None = None,
    ) -> None:
        """`devices`: instead of those that the settings name."""
        self._settings = qwen
        self._devices = devices or Devices(qwen)
        self._threads = ThreadPoolExecutor(_THREADS, "qwen-words")
        self._prompt: Prompt | None = None
        self._segment_ms = 0.0
        self._max_calls = engine.queue + qwen.batch_items * self._devices.count
        self._calls = 0
        self._max_streams = engine.streams
        self._streams = 0
        self._closed = False
        self.batcher: Batcher[Item, TimestampSlots] = Batcher(
            self._devices.run,
            size=lambda item: item.rows,
            budget=batch_rows(qwen, "cpu"),  # until `start` knows the device
            max_items=qwen.batch_items,
            queue=engine.queue,
            slots=self._devices.count,
            check=self._devices.check,
            on_failed=on_failed,
            watch=watch,
        )
        # One batch on each device and one that is being filled; at least some calls to fill the next from.
        self.capacity = Capacity(lowest=max(4, qwen.batch_items // 8), at_once=2 * qwen.batch_items * self._devices.count)
        self.report = EngineReport(self.batcher.state, self._devices.count, self._devices.pools)

    async def start(self) -> None:
        check_split(words.split)
        began = time.perf_counter()
        loaded, tokenizer = await self._devices.start()
        self._segment_ms = loaded.segment_ms
        self._prompt = Prompt(tokenizer, loaded.vocabulary)
        self.batcher.budget = TokenBudget(batch_rows(self._settings, loaded.device_type))
        self.batcher.ahead = self._devices.ahead * self._devices.count
        log.info(
            "%s on %s in %s: loaded in %.1f s, warmed up in %.1f s; imports included %.1f s, processes: %d",
            self._settings.model, loaded.device, loaded.dtype, loaded.load_seconds, loaded.warm_seconds,
            time.perf_counter() - began, self._devices.count,
        )  # fmt: skip

    async def close(self) -> None:
        self._closed = True
        await asyncio.gather(self.batcher.close(), self._devices.close())  # together: a batch on a CPU may take minutes
        # Prompts are finished and then refused by the batcher: cancelling one would look like the client's cancellation.
        self._threads.shutdown(wait=False)

    async def tokenise(self, transcript: str, language: str) -> Sequence[Token]:
        """See Engine.tokenise. Raises InvalidArgumentError for a Japanese text of more than _MAX_JAPANESE characters."""
        if language == "ja" and len(transcript) > _MAX_JAPANESE:
            message = f"the transcript has {len(transcript)} characters; in Japanese at most {_MAX_JAPANESE} are accepted"
            raise InvalidArgumentError("TRANSCRIPT_TOO_LONG", message, field="config.transcript")
        return await self._in_thread(transcript_words, transcript, words.split, language)

    async def align(
        self, clip: Clip, tokens: Sequence[Token], language: str, caller: Caller, progress: ProgressSink | None = None
    ) -> EngineResult:
        """See Engine.align."""
        check_rate(len(tokens), sum(len(token.spoken[0]) for token in tokens), clip.seconds)
        if self._calls >= self._max_calls:  # before anything is prepared for it
            raise refusals.queue_full()
        self._calls += 1

        async def window(samples: npt.NDArray[np.int16], words: Sequence[Token]) -> EngineResult:
            return await self._pass(samples, words, caller, admitted=True)

        try:
            if clip.seconds <= MAX_SECONDS:
                try:
                    return await self._pass(clip.samples, tokens, caller, admitted=False)
                except TooManyRowsError:
                    if clip.seconds <= CUT.last_seconds:  # one window
                        raise
            return await LongRecording(clip, tokens, window).align(progress, self._segment_ms)
        except (WorkerDiedError, WorkerTimeoutError):
            raise refusals.lost() from None
        finally:
            self._calls -= 1

    async def follow(
        self,
        audio: LiveAudio,
        text: LiveText,
        language: str,
        caller: Caller,
        *,
        on_spans: OnSpans,
        progress: ProgressSink | None = None,
    ) -> EngineResult:
        """See LiveEngine.follow. An upload that is not spoken now has the windows of a long recording, or is aligned in one."""
        if self._streams >= self._max_streams:
            raise refusals.queue_full()
        self._streams += 1

        async def window(samples: npt.NDArray[np.int16], words: Sequence[Token]) -> EngineResult:
            return await self._pass(samples, words, caller, admitted=True)

        try:
            cut = LIVE_CUT
            if not audio.live:
                cut = CUT
                audio.want(CUT.last_seconds + _AHEAD)
                count = await audio.reach(round(CUT.last_seconds * SAMPLE_RATE) + 1)
                if count <= CUT.last_seconds * SAMPLE_RATE:
                    return await _complete(audio, text, on_spans, partial(self._align, language, caller, progress))
            return await LiveRecording(audio, text, window, on_spans, cut).follow(progress, self._segment_ms)
        except (WorkerDiedError, WorkerTimeoutError):
            raise refusals.lost() from None
        finally:
            self._streams -= 1

    async def _align(
        self, language: str, caller: Caller, progress: ProgressSink | None, clip: Clip, tokens: Sequence[Token]
    ) -> EngineResult:
        return await self.align(clip, tokens, language, caller, progress)

    async def _pass(
        self, samples: npt.NDArray[np.int16], words: Sequence[Token], caller: Caller, *, admitted: bool
    ) -> EngineResult:
        """Audio and words that the model takes at once. `admitted` as in Batcher.submit. Raises TooManyRowsError."""
        assert self._prompt is not None
        ids = await self._in_thread(self._prompt, len(samples), [token.spoken[0] for token in words])
        done = await self.batcher.submit(Item(samples, ids, caller), caller, admitted=admitted)
        seconds = len(samples) / SAMPLE_RATE
        return await self._in_thread(assemble, done.result, seconds, self._segment_ms, done.queued, done.busy)

    async def _in_thread(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Run on a thread for words. Raises UnavailableError once the engine is closed."""
        if self._closed:
            raise refusals.closed()
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*arguments, **named))


async def _complete(
    audio: LiveAudio, text: LiveText, on_spans: OnSpans, align: Callable[[Clip, Sequence[Token]], Awaitable[EngineResult]]
) -> EngineResult:
    """Of audio that has ended: all of it in one."""
    if not await text.reach(sys.maxsize):
        return EngineResult((), 0.0)
    tokens, _ = text.offer(sys.maxsize)
    result = await align(Clip(audio.cut(0, audio.length)), tokens)
    text.take(len(tokens))
    on_spans(result.spans)
    return replace(result, spans=())
