"""Qwen3-ForcedAligner as an engine: splits words, makes prompts, has batches computed by the processes of the devices."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import ParamSpec, TypeVar

from aligner_svc.config import Settings
from aligner_svc.config.engine import EngineSettings, QwenSettings
from aligner_svc.domain import Caller, Clip, ProgressSink, Token
from aligner_svc.engines import refusals
from aligner_svc.engines.base import Capacity, EngineReport, EngineResult, OnFailed
from aligner_svc.engines.batching import Batcher, BatchWatch
from aligner_svc.engines.qwen import words
from aligner_svc.engines.qwen.devices.pool import Backend, Devices
from aligner_svc.engines.qwen.devices.wire import Item
from aligner_svc.engines.qwen.outcome import MAX_SECONDS, assemble
from aligner_svc.engines.qwen.prompt import Prompt
from aligner_svc.engines.qwen.timestamps import TimestampSlots
from aligner_svc.engines.self_test import check_split
from aligner_svc.errors import InvalidArgumentError
from aligner_svc.text.speaking_rate import check_rate
from aligner_svc.text.transcript import words as transcript_words
from aligner_svc.workers import WorkerDiedError, WorkerTimeoutError
from aligner_svc.workers.fair_queue import TokenBudget

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_BUDGET = {"cuda": 32_768, "cpu": 1_024}
"""Decoder rows of a batch. Some 16,000 keep a GPU busy, 200 two cores; more only add waiting time."""
_CHARACTERS_A_SECOND = {"ja": 20}
_MAX_CHARACTERS_A_SECOND = 50
"""Largest transcript, per second of the longest clip. Japanese has its own limit: its tagger keeps 26 kB per character."""
_THREADS = 2
"""Split transcripts, make prompts and answers: milliseconds for a long one."""


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
        devices: Backend | None = None,
    ) -> None:
        """`devices`: instead of those that the settings name."""
        self._settings = qwen
        self._devices = devices or Devices(qwen)
        self._threads = ThreadPoolExecutor(_THREADS, "qwen-words")
        self._prompt: Prompt | None = None
        self._segment_ms = 0.0
        self._max_calls = engine.queue + qwen.batch_items
        self._calls = 0
        self._closed = False
        self.batcher: Batcher[Item, TimestampSlots] = Batcher(
            self._devices.run,
            size=lambda item: item.rows,
            budget=qwen.batch_tokens or _BUDGET["cpu"],  # until `start` knows the device
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
        self.batcher.budget = TokenBudget(self._settings.batch_tokens or _BUDGET[loaded.device_type])
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
            assert self._prompt is not None
            ids = await self._in_thread(self._prompt, len(clip.samples), [token.spoken[0] for token in tokens])
            done = await self.batcher.submit(Item(clip.samples, ids), caller)
        except (WorkerDiedError, WorkerTimeoutError):
            raise refusals.lost() from None
        finally:
            self._calls -= 1
        return await self._in_thread(assemble, done.result, clip.seconds, self._segment_ms, done.queued, done.busy)

    async def _in_thread(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Run on a thread for words. Raises UnavailableError once the engine is closed."""
        if self._closed:
            raise refusals.closed()
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*arguments, **named))
