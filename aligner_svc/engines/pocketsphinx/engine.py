"""The embedded engine: PocketSphinx in worker processes, for English and, approximately, other languages on any CPU."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aligner_svc.config import Settings
from aligner_svc.config.engine import EngineSettings
from aligner_svc.domain import Caller, Clip, ProgressSink, Token, Warning, WordStatus
from aligner_svc.engines import refusals
from aligner_svc.engines.base import SHORT_SECONDS, Capacity, EngineReport, EngineResult, OnFailed, Span
from aligner_svc.engines.batching import Batcher, BatchWatch, QueueState
from aligner_svc.engines.pocketsphinx.languages import table
from aligner_svc.engines.pocketsphinx.languages.started import APPROXIMATE, CUT, Started
from aligner_svc.engines.pocketsphinx.languages.wire import window_request
from aligner_svc.engines.pocketsphinx.wire import (
    MalformedError,
    TokenSpan,
    decode_answer,
    decode_tokens,
    encode_request,
    text_request,
)
from aligner_svc.engines.self_test import check_split
from aligner_svc.engines.windows import Cut, Placed, Prefix, align_in_windows
from aligner_svc.text import tokenise
from aligner_svc.text.transcript import words
from aligner_svc.workers import (
    JsonValue,
    Priority,
    Reply,
    SandboxMode,
    WorkerDiedError,
    WorkerPool,
    WorkerTimeoutError,
    log_sandbox,
)
from aligner_svc.workers.threads import off_loop

_ENGLISH = "en"
MATCH_THRESHOLD = 0.5
"""Match score below which the answer warns that transcript and audio do not belong together."""
_MATCHED = 0.75
"""Match score from which confidences are not scaled down: the lowest of 80 clips with their own transcript."""
_MAX_SPOKEN = 100
"""Spoken words of one token that are aligned: as many as fit a window. A 4,000-digit number has more."""
_CHARS_A_WORD = 6
_LONG_TEXT = 5_000
"""Characters above which a transcript is tokenised in a process. One full of figures takes 13 us a character, with the
interpreter lock all the time: 12 of 200,000 at once held up all other calls for 10 s or more, and threads do not help."""
_TEXT_TIMEOUT = 60.0
"""Seconds for that, on a slow core and at a low priority; the longest takes 3."""
_WINDOW_TIMEOUT = 60.0
"""Seconds that one window may take; the slowest path needs 5 on a slow core."""


class _Window(NamedTuple):
    request: dict[str, JsonValue]
    samples: npt.NDArray[np.int16]


class WindowQueue:
    """Processes, and the queue in front of them, a window an item."""

    def __init__(
        self,
        name: str,
        settings: EngineSettings,
        sandbox: SandboxMode,
        watch: BatchWatch | None,
        priority: Priority,
        *,
        languages: Collection[str] = (),
    ) -> None:
        """`languages`: other ones than English."""
        module = f"aligner_svc.engines.pocketsphinx.{'languages.' if languages else ''}worker"
        args = (sandbox, priority, ",".join(sorted(languages))) if languages else (sandbox, priority)
        self.pool = WorkerPool(module, settings.workers, args=args, name=name)
        self.batcher: Batcher[_Window, Reply] = Batcher(
            self._run,
            size=lambda window: len(window.samples),
            budget=1,
            max_items=1,
            queue=settings.queue,
            slots=settings.workers,
            watch=watch,
        )
        self._max_calls = settings.workers + settings.queue
        self._calls = 0

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around all windows of a call. Raises LimitExceededError when there are more calls than the queue may hold."""
        if self._calls >= self._max_calls:
            raise refusals.queue_full()
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    async def close(self) -> None:
        await self.batcher.close()
        await self.pool.close()

    async def _run(self, windows: Sequence[_Window]) -> Sequence[Reply]:
        (window,) = windows
        return [await self.pool.call(window.request, window.samples.data.cast("B"), timeout=_WINDOW_TIMEOUT)]


def build(settings: Settings, on_failed: OnFailed, watch: BatchWatch | None) -> PocketSphinxEngine:
    """See engines.base.Build. `on_failed` is unused: a failed process is replaced."""
    return PocketSphinxEngine(settings.engine, settings.decode.sandbox, watch, decoders=settings.decode.workers)


class PocketSphinxEngine:
    """Engine (see engines/base.py) for a CPU: English, and other languages by its acoustic model (docs/languages.md).

    Short recordings in English have processes of their own, at the normal CPU priority; those of long ones have a low one and get
    the time that nothing else wants. With processes for all, a short call waited for a window of a long recording to end, 0.4 to
    0.7 s.
    """

    name = f"pocketsphinx-{version('pocketsphinx')}"
    max_seconds = None

    def __init__(
        self,
        settings: EngineSettings,
        sandbox: SandboxMode = "best-effort",
        watch: BatchWatch | None = None,
        *,
        decoders: int = 1,
    ) -> None:
        """`decoders`: processes that prepare clips for it."""
        self.short = WindowQueue("pocketsphinx", settings, sandbox, watch, "normal")
        self.long = WindowQueue("pocketsphinx-long", settings, sandbox, watch, "low")
        others = table.served(settings.languages)
        self.languages = others | {_ENGLISH}
        self.others = Started(lambda: WindowQueue("pocketsphinx-languages", settings, sandbox, watch, "normal", languages=others))
        self.capacity = Capacity(lowest=settings.workers + decoders + 1, at_once=settings.workers)
        self.report = EngineReport(self._state, settings.workers, (self.short.pool, self.long.pool))

    async def start(self) -> None:
        check_split(tokenise)
        try:
            await asyncio.gather(self.short.pool.start(), self.long.pool.start())
        except BaseException:
            await self.close()
            raise
        log_sandbox(self.short.pool)

    async def close(self) -> None:
        await asyncio.gather(self.short.close(), self.long.close(), self.others.close())

    def _state(self) -> QueueState:
        """Of all queues together; a client that waits in two counts twice."""
        queues = [self.short, self.long, *([self.others.running] if self.others.running else [])]
        states = [queue.batcher.state() for queue in queues]
        return replace(
            states[0],
            waiting=sum(state.waiting for state in states),
            waiting_tokens=sum(state.waiting_tokens for state in states),
            oldest_wait=max(state.oldest_wait for state in states),
            running=sum(state.running for state in states),
            clients=sum(state.clients for state in states),
        )

    async def tokenise(self, transcript: str, language: str) -> Sequence[Token]:
        """See Engine.tokenise. Long transcripts wait for the processes of long recordings; other languages are read in theirs."""
        if language == _ENGLISH and len(transcript) <= _LONG_TEXT:
            return await off_loop(words, transcript, tokenise, language, words=len(transcript) // _CHARS_A_WORD)
        with _worker_failures():
            queue = self.long if language == _ENGLISH else await self.others.queue()
            reply = await queue.pool.call(text_request(language), transcript.encode(), timeout=_TEXT_TIMEOUT)
            return await asyncio.to_thread(decode_tokens, reply.header, reply.payload, transcript)

    async def align(
        self, clip: Clip, tokens: Sequence[Token], language: str, caller: Caller, progress: ProgressSink | None = None
    ) -> EngineResult:
        """See Engine.align. The windows of all calls are queued fairly, those of short recordings apart."""
        english = language == _ENGLISH
        if english:
            queue = self.short if clip.seconds <= SHORT_SECONDS else self.long
        else:
            with _worker_failures():
                queue = await self.others.queue()
        queued = busy = 0.0

        async def align_window(
            samples: npt.NDArray[np.int16], coming: Sequence[Token], last: bool, complete: bool
        ) -> Prefix[TokenSpan]:
            nonlocal queued, busy
            spoken = [token.spoken[:_MAX_SPOKEN] for token in coming]
            request = encode_request(spoken, last, complete) if english else window_request(language, spoken, last, complete)
            done = await queue.batcher.submit(_Window(request, samples), caller)
            queued, busy = queued + done.queued + done.result.queued, busy + done.result.busy
            return decode_answer(done.result.header)

        with _worker_failures(), queue.call():
            placed = await align_in_windows(clip, tokens, align_window, progress, Cut() if english else CUT)
        score = sum(item.span.evidence for item in placed if item.span is not None) / len(tokens)
        spans = _spans(placed, len(tokens), clip.seconds, scale=min(1.0, score / _MATCHED) if english else 1.0)
        warnings = [*([] if english else [APPROXIMATE]), *_warnings(spans, score)]
        return EngineResult(spans, score, warnings, queued, busy)


@contextmanager
def _worker_failures() -> Iterator[None]:
    """Raises UnavailableError for a process that failed."""
    try:
        yield
    except (WorkerDiedError, WorkerTimeoutError, MalformedError):
        raise refusals.lost() from None


def _spans(placed: Sequence[Placed[TokenSpan]], count: int, seconds: float, scale: float) -> list[Span]:
    """One span for every token, in order and inside the clip.

    Windows meet at a word's end, where two estimates may cross. `scale` multiplies the confidences: the
    few words of another transcript that are found match by chance.
    """
    spans: list[Span] = []
    at = 0.0
    for item in placed:
        span = item.span
        if span is None or span.status is WordStatus.NOT_FOUND:
            spans.append(Span(at, at, 0.0, WordStatus.NOT_FOUND))
            continue
        start = min(max(item.offset + span.start, at), seconds)
        end = min(max(item.offset + span.end, start), seconds)
        spans.append(Span(start, end, span.confidence * scale, span.status))
        at = end
    spans += [Span(at, at, 0.0, WordStatus.NOT_FOUND)] * (count - len(spans))
    return spans


def _warnings(spans: Sequence[Span], score: float) -> list[Warning]:
    warnings = []
    if score < MATCH_THRESHOLD:
        message = (
            f"the transcript does not seem to belong to this audio (match score {score:.2f}, expected at least {MATCH_THRESHOLD})"
        )
        warnings.append(Warning("TRANSCRIPT_MISMATCH", message))
    absent = sum(span.status is WordStatus.NOT_FOUND for span in spans)
    if absent:
        warnings.append(Warning("WORDS_NOT_FOUND", f"{absent} of {len(spans)} words were not found in the audio"))
    return warnings
