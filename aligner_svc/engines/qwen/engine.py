"""Qwen3-ForcedAligner as an engine: splits words, prepares clips on CPU threads, runs batches on the device."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import ParamSpec, TypeVar

import numpy as np

from aligner_svc.config import Settings
from aligner_svc.config.engine import EngineSettings, QwenSettings
from aligner_svc.domain import SAMPLE_RATE, Caller, Clip, ProgressSink, Token
from aligner_svc.engines import refusals
from aligner_svc.engines.base import Capacity, EngineReport, EngineResult, EngineStartError, OnFailed
from aligner_svc.engines.batching import Batcher, BatchWatch, DeviceMemoryError
from aligner_svc.engines.qwen import checkpoint, words
from aligner_svc.engines.qwen.device import ModelThread, compute_exactly, resolve_device, resolve_dtype, thread_pool
from aligner_svc.engines.qwen.forward import PackedAligner, TimestampSlots
from aligner_svc.engines.qwen.memory import keep_few_kernels, keep_memory, return_memory
from aligner_svc.engines.qwen.outcome import MAX_SECONDS, assemble
from aligner_svc.engines.qwen.preparation import Preparation, Prepared
from aligner_svc.engines.self_test import check_split
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.text.speaking_rate import check_rate
from aligner_svc.text.transcript import words as transcript_words

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_BUDGET = {"cuda": 32_768, "cpu": 1_024}
"""Decoder rows of a batch. Some 16,000 keep a GPU busy, 200 two cores; more only add waiting time."""
_WARM_SECONDS = {"cuda": (1.0, 10.0, 30.0, 120.0, MAX_SECONDS), "cpu": (1.0, 10.0)}
_WARM_WORDS_A_SECOND = 2
_CHARACTERS_A_SECOND = {"ja": 20}
_MAX_CHARACTERS_A_SECOND = 50
"""Largest transcript, per second of the longest clip. Japanese has its own limit: its tagger keeps 26 kB per character."""
_LONG_SECONDS = 60
"""Length of a clip from which memory is returned before its spectrogram is made."""
PREPARERS = {"cuda": max(2, min(8, (os.cpu_count() or 2) - 2)), "cpu": 2}
"""Threads that prepare clips. One runs at some 5,000 times real time; nearly all of it is spectrograms."""


def build(settings: Settings, on_failed: OnFailed, watch: BatchWatch | None) -> QwenEngine:
    """See engines.base.Build."""
    return QwenEngine(settings.engine, settings.qwen, on_failed, watch)


class QwenEngine:
    """Engine (see engines/base.py) for 11 languages, on a GPU or on a CPU."""

    name = f"qwen3-forced-aligner-{version('qwen-asr')}"
    languages = words.LANGUAGES
    max_seconds = MAX_SECONDS

    def __init__(
        self,
        engine: EngineSettings,
        qwen: QwenSettings,
        on_failed: OnFailed | None = None,
        watch: BatchWatch | None = None,
    ) -> None:
        """Raises EngineStartError."""
        self._settings = qwen
        self._device = resolve_device(qwen)
        self._dtype = resolve_dtype(qwen, self._device)
        if self._device.type == "cpu":
            keep_memory()
            keep_few_kernels()
        else:
            compute_exactly()
        self._model = ModelThread(self._device)
        self._preparers = thread_pool(PREPARERS[self._device.type], "qwen-prepare", cores=1)
        self._preparation: Preparation | None = None
        self._probe: Prepared | None = None
        self._segment_ms = 0.0
        self._max_calls = engine.queue + qwen.batch_items
        self._calls = 0
        self._closed = False
        self.batcher: Batcher[Prepared, TimestampSlots] = Batcher(
            self._model.run,
            size=lambda item: item.rows,
            budget=qwen.batch_tokens or _BUDGET[self._device.type],
            max_items=qwen.batch_items,
            queue=engine.queue,
            check=self._check,
            on_failed=on_failed,
            watch=watch,
        )
        # One batch on the device and one that is being filled; at least some calls to fill the next from.
        self.capacity = Capacity(lowest=max(4, qwen.batch_items // 8), at_once=2 * qwen.batch_items)
        self.report = EngineReport(self.batcher.state)

    async def start(self) -> None:
        check_split(words.split)
        began = time.perf_counter()
        await self._model.load(self._build)
        loaded = time.perf_counter()
        try:
            for seconds in _WARM_SECONDS[self._device.type]:
                noise = await self._noise(seconds)
                self._probe = self._probe or noise
                await self._model.run([noise])
        except DeviceMemoryError:
            raise EngineStartError(f"the memory of {self._device} does not hold {self._settings.model} and a clip") from None
        log.info(
            "%s on %s in %s: loaded in %.1f s, warmed up in %.1f s",
            self._settings.model, self._device, self._dtype, loaded - began, time.perf_counter() - loaded,
        )  # fmt: skip

    async def close(self) -> None:
        self._closed = True
        await self.batcher.close()
        self._model.close()
        # Preparations finish and are then refused by the batcher: cancelling one would look like the client's cancellation.
        self._preparers.shutdown(wait=False)

    async def tokenise(self, transcript: str, language: str) -> Sequence[Token]:
        """See Engine.tokenise. Raises InvalidArgumentError for a text too long for any clip that this engine takes."""
        most = int(_CHARACTERS_A_SECOND.get(language, _MAX_CHARACTERS_A_SECOND) * MAX_SECONDS)
        if len(transcript) > most:
            message = f"the transcript has {len(transcript)} characters; {MAX_SECONDS:g} s of audio hold at most {most}"
            raise InvalidArgumentError("TRANSCRIPT_TOO_LONG", message, field="config.transcript")
        return await self._in_thread(transcript_words, transcript, words.split, language)

    async def align(
        self, clip: Clip, tokens: Sequence[Token], language: str, caller: Caller, progress: ProgressSink | None = None
    ) -> EngineResult:
        """See Engine.align."""
        if clip.seconds > MAX_SECONDS:
            message = f"the audio is longer than the {MAX_SECONDS:g} seconds this engine takes"
            raise InvalidArgumentError("AUDIO_TOO_LONG", message, field="audio")
        check_rate(len(tokens), sum(len(token.spoken[0]) for token in tokens), clip.seconds)
        if self._calls >= self._max_calls:  # before anything is prepared for it
            raise refusals.queue_full()
        self._calls += 1
        try:
            item = await self._in_thread(self._prepare, clip, [token.spoken[0] for token in tokens])
            done = await self.batcher.submit(item, caller)
        finally:
            self._calls -= 1
        return await self._in_thread(assemble, done.result, clip.seconds, self._segment_ms, done.queued, done.busy)

    async def _in_thread(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Run on a thread that prepares clips. Raises UnavailableError once the engine is closed."""
        if self._closed:
            raise refusals.closed()
        return await asyncio.get_running_loop().run_in_executor(self._preparers, lambda: work(*arguments, **named))

    def _build(self) -> PackedAligner:
        loaded = checkpoint.load(self._settings.model, self._device, self._dtype, self._settings.revision)
        self._preparation = Preparation(loaded, self._dtype)
        self._segment_ms = loaded.segment_ms
        return PackedAligner(loaded)

    def _prepare(self, clip: Clip, spoken: Sequence[str]) -> Prepared:
        assert self._preparation is not None
        if self._device.type == "cpu" and clip.seconds > _LONG_SECONDS:
            return_memory()  # else a long clip's spectrogram would come on top of the memory that batches have left
        return self._preparation(clip.samples, spoken)

    async def _noise(self, seconds: float) -> Prepared:
        assert self._preparation is not None
        samples = np.random.default_rng(0).normal(0, 1000, int(seconds * SAMPLE_RATE)).astype(np.int16)
        return await self._in_thread(self._preparation, samples, ["word"] * max(1, int(seconds * _WARM_WORDS_A_SECOND)))

    async def _check(self) -> None:
        """Run a batch that is known to work, without waiting for preparations. Raises if the device fails."""
        assert self._probe is not None
        await self._model.run([self._probe])
