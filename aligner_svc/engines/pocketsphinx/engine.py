"""The embedded engine: PocketSphinx in worker processes, for English and, approximately, other languages on any CPU."""

# long: complete recordings and those that are followed share the queues, the windows and the answer
from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aligner_svc.config import Settings
from aligner_svc.config.engine import EngineSettings
from aligner_svc.config.limits import available_cores
from aligner_svc.domain import SAMPLE_RATE, Caller, Clip, Phone, ProgressSink, Token, Warning, WordStatus
from aligner_svc.engines import refusals
from aligner_svc.engines.base import SHORT_SECONDS, Capacity, EngineReport, EngineResult, OnFailed, OnSpans, Span
from aligner_svc.engines.batch_report import BatchWatch, QueueState
from aligner_svc.engines.batching import Batcher
from aligner_svc.engines.halves import CallPool
from aligner_svc.engines.live import LiveAudio, LiveText
from aligner_svc.engines.live_load import LiveLoad, LiveStream
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
from aligner_svc.engines.windows import AlignWindow, Cut, Placed, Prefix, Windows, align_in_windows
from aligner_svc.text import tokenise
from aligner_svc.text.spoken import WITH_READER
from aligner_svc.text.transcript import words
from aligner_svc.workers import JsonValue, Priority, SandboxMode, WorkerDiedError, WorkerTimeoutError, log_sandbox
from aligner_svc.workers.pool import Reply, WorkerPool
from aligner_svc.workers.threads import off_loop

SHORT, LONG, OTHERS = "pocketsphinx", "pocketsphinx-long", "pocketsphinx-languages"
"""Names of its queues: recordings in English up to SHORT_SECONDS, longer ones, and other languages."""
READER = "pocketsphinx-reader"
"""Name of the process that splits transcripts in a language that needs a dictionary for it."""
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
_WINDOW_TIMEOUT: Mapping[Priority, float] = {"normal": 60.0, "low": 600.0}
"""Seconds that one window may take; the slowest path needs 5 on a slow core. At a low priority a process may get 3 % of one
for as long as others are busy, and an hour of audio is lost with any of its windows."""
_LATE = 2.0
"""Seconds that windows of short recordings wait for a process, from which on no further recording is followed."""
_AT_ONCE = 1000
"""Words handed out at a time of those that come after the end of the audio."""


class Window(NamedTuple):
    """What a process works on at a time."""

    request: Mapping[str, JsonValue]
    samples: npt.NDArray[np.int16]
    caller: Caller


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
        elsewhere: CallPool | None = None,
    ) -> None:
        """`languages`: other ones than English. `elsewhere`: processes on other machines, instead of own ones."""
        module = f"aligner_svc.engines.pocketsphinx.{'languages.' if languages else ''}worker"
        args = (sandbox, priority, ",".join(sorted(languages))) if languages else (sandbox, priority)
        self.pool: CallPool = elsewhere or WorkerPool(module, settings.workers, args=args, name=name, on_demand=name == LONG)
        self._elsewhere = elsewhere is not None
        self.batcher: Batcher[Window, Reply] = Batcher(
            self._run,
            size=lambda window: len(window.samples),
            budget=1,
            max_items=1,
            queue=settings.queue + settings.streams,  # each of them waits with one window at a time
            slots=settings.workers,
            watch=watch,
        )
        self._timeout = _WINDOW_TIMEOUT[priority]
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

    async def start(self) -> None:
        """Raises WorkerDiedError."""
        await self.pool.start()

    async def close(self) -> None:
        await self.batcher.close()
        await self.pool.close()

    async def _run(self, windows: Sequence[Window]) -> Sequence[Reply]:
        (window,) = windows
        deadline, timeout = window.caller.deadline, self._timeout
        if self._elsewhere and deadline is not None:  # here it would kill the process
            timeout = min(timeout, deadline - asyncio.get_running_loop().time())
        samples, client = window.samples.data.cast("B"), window.caller.client
        return [await self.pool.call(window.request, samples, timeout=timeout, client=client)]


def build(settings: Settings, on_failed: OnFailed, watch: BatchWatch | None) -> PocketSphinxEngine:
    """See engines.base.Build. `on_failed` is unused: a failed process is replaced."""
    return PocketSphinxEngine(settings.engine, settings.decode.sandbox, watch, decoders=settings.decode.workers)


class PocketSphinxEngine:
    """Engine (see engines/base.py) for a CPU: English, and other languages by its acoustic model (docs/languages.md).

    Short recordings in English have processes of their own, at the normal CPU priority; those of long ones have a low one and get
    the time that nothing else wants. With processes for all, a short call waited for a window of a long recording to end, 0.4 to
    0.7 s. Those of long ones start with the first: a server that gets none, or has just started, is spared half of the work.
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
        elsewhere: Callable[[str], CallPool] | None = None,
    ) -> None:
        """`decoders`: processes that prepare clips for it. `elsewhere`: by name, those on other machines instead of own ones."""

        def queue(name: str, priority: Priority, languages: Collection[str] = ()) -> WindowQueue:
            there = elsewhere(name) if elsewhere is not None else None
            return WindowQueue(name, settings, sandbox, watch, priority, languages=languages, elsewhere=there)

        self.short = queue(SHORT, "normal")
        self.long = queue(LONG, "low")
        others = table.served(settings.languages)
        self.languages = others | {_ENGLISH}
        self.phone_sets = {language: table.phones(language) for language in self.languages}
        self.support = {language: table.support(language) for language in self.languages}

        def reader() -> CallPool:
            if elsewhere is not None:
                return elsewhere(READER)
            arguments = (sandbox, ",".join(sorted(others & WITH_READER)))
            return WorkerPool("aligner_svc.engines.pocketsphinx.languages.reader", 1, args=arguments, name=READER)

        self.reader = Started(reader)
        self.others = Started(lambda: queue(OTHERS, "normal", others))
        self._max_streams = settings.streams
        self._streams = 0
        self._live = LiveLoad(min(settings.workers, available_cores()))
        self.capacity = Capacity(lowest=settings.workers + decoders + 1, at_once=settings.workers)
        own = [pool for pool in (self.short.pool, self.long.pool) if isinstance(pool, WorkerPool)]
        self.report = EngineReport(self._state, settings.workers, own)

    async def start(self) -> None:
        check_split(tokenise)
        try:
            await asyncio.gather(self.short.pool.start(), self.long.pool.start())
        except BaseException:
            await self.close()
            raise
        for pool in self.report.pools[:1]:
            log_sandbox(pool)

    async def close(self) -> None:
        await asyncio.gather(self.short.close(), self.long.close(), self.others.close(), self.reader.close())

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
            reply = await (await self._splitter(language)).call(
                text_request(language), transcript.encode(), timeout=_TEXT_TIMEOUT
            )
            return await asyncio.to_thread(decode_tokens, reply.header, reply.payload, transcript)

    async def _splitter(self, language: str) -> CallPool:
        """The processes that split a transcript. Raises WorkerDiedError."""
        if language == _ENGLISH:
            return self.long.pool
        return await self.reader.get() if language in WITH_READER else (await self.others.get()).pool

    async def align(
        self,
        clip: Clip,
        tokens: Sequence[Token],
        language: str,
        caller: Caller,
        progress: ProgressSink | None = None,
        *,
        phones: bool = False,
    ) -> EngineResult:
        """See PhoneEngine.align. The windows of all calls are queued fairly, those of short recordings apart."""
        english = language == _ENGLISH
        if english:
            queue = self.short if clip.seconds <= SHORT_SECONDS else self.long
        else:
            with _worker_failures():
                queue = await self.others.get()
        calls = _Calls(language, lambda: queue, caller, phones=phones)
        with _worker_failures(), queue.call():
            placed = await align_in_windows(clip, tokens, calls.aligner(), progress, Cut() if english else CUT)
        score = sum(item.span.evidence for item in placed if item.span is not None) / len(tokens)
        spans = _spans(placed, len(tokens), clip.seconds, scale=_scale(score, english=english))
        absent = sum(span.status is WordStatus.NOT_FOUND for span in spans)
        warnings = [*([] if english else [APPROXIMATE]), *_warnings(absent, len(spans), score)]
        return EngineResult(spans, score, warnings, calls.queued, calls.busy)

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
        """See LiveEngine.follow. Windows of what is spoken now are queued with those of short recordings, others with long ones.

        The confidences of a word are scaled by the match score of the words up to it.
        """
        english = language == _ENGLISH
        if self._streams >= self._max_streams or self.short.batcher.state().oldest_wait > _LATE:
            raise refusals.queue_full()
        self._streams += 1
        try:
            with _worker_failures(), self._live.stream() if audio.live else nullcontext() as stream:
                others = None if english else await self.others.get()
                calls = _Calls(language, lambda: others or (self.short if audio.live else self.long), caller, stream)
                answer = _LiveAnswer(audio, on_spans, english=english)
                cut, settle = Cut() if english else CUT, calls.aligner(live=True)
                await Windows(audio, text, calls.aligner(), answer.add, progress=progress, cut=cut, settle=settle).run()
            while await text.reach(1):  # said after the end of the audio, if at all
                left, _ = text.offer(_AT_ONCE)
                text.take(len(left))
                answer.add([Placed(0.0, None)] * len(left))
        finally:
            self._streams -= 1
        warnings = [*([] if english else [APPROXIMATE]), *_warnings(answer.absent, answer.count, answer.score)]
        return EngineResult((), answer.score, warnings, calls.queued, calls.busy)


class _Calls:
    """The windows of one call, and how long they took in all."""

    def __init__(
        self,
        language: str,
        queue: Callable[[], WindowQueue],
        caller: Caller,
        stream: LiveStream | None = None,
        *,
        phones: bool = False,
    ) -> None:
        """`queue`: where the next window waits. `stream`: that the call is, if it is spoken now. `phones`: with them."""
        self.queued = self.busy = 0.0
        self._stream = stream
        self._language = language
        self._queue = queue
        self._caller = caller
        self._phones = phones

    def aligner(self, *, live: bool = False) -> AlignWindow[TokenSpan]:
        """For `Windows`; `live` as in `WindowAligner.align`."""

        async def align(samples: npt.NDArray[np.int16], coming: Sequence[Token], last: bool, complete: bool) -> Prefix[TokenSpan]:
            spoken = [token.spoken[:_MAX_SPOKEN] for token in coming]
            if self._language == _ENGLISH:
                request = encode_request(spoken, last, complete, live=live, phones=self._phones)
            else:
                request = window_request(self._language, spoken, last, complete, live=live, phones=self._phones)
            window = Window(request, samples, self._caller)
            done = await self._queue().batcher.submit(window, self._caller, patient=self._stream is not None)
            self.queued += done.queued + done.result.queued
            self.busy += done.result.busy
            if self._stream is not None:
                self._stream.worked(done.result.busy)
            return decode_answer(done.result.header)

        return align


@contextmanager
def _worker_failures() -> Iterator[None]:
    """Raises UnavailableError for a process that failed."""
    try:
        yield
    except (WorkerDiedError, WorkerTimeoutError, MalformedError):
        raise refusals.lost() from None


class _LiveAnswer:
    """Of a recording that is followed: hands out its spans, and sums up how they match."""

    def __init__(self, audio: LiveAudio, on_spans: OnSpans, *, english: bool) -> None:
        self.count = self.absent = 0
        self._audio = audio
        self._on_spans = on_spans
        self._english = english
        self._evidence = 0.0
        self._at = 0.0

    @property
    def score(self) -> float:
        """The match score so far."""
        return self._evidence / self.count if self.count else 0.0

    def add(self, placed: Sequence[Placed[TokenSpan]]) -> None:
        """The next tokens."""
        self.count += len(placed)
        self._evidence += sum(item.span.evidence for item in placed if item.span is not None)
        scale = _scale(self.score, english=self._english)
        spans = _spans(placed, len(placed), self._audio.length / SAMPLE_RATE, scale, self._at)
        self.absent += sum(span.status is WordStatus.NOT_FOUND for span in spans)
        self._at = spans[-1].end
        self._on_spans(spans)


def _spans(placed: Sequence[Placed[TokenSpan]], count: int, seconds: float, scale: float, at: float = 0.0) -> list[Span]:
    """One span for every token, in order and inside the clip. `at`: the end of the word before them.

    Windows meet at a word's end, where two estimates may cross. `scale` multiplies the confidences: the
    few words of another transcript that are found match by chance.
    """
    spans: list[Span] = []
    for item in placed:
        span = item.span
        if span is None or span.status is WordStatus.NOT_FOUND:
            spans.append(Span(at, at, 0.0, WordStatus.NOT_FOUND))
            continue
        start = min(max(item.offset + span.start, at), seconds)
        end = min(max(item.offset + span.end, start), seconds)
        phones = tuple(
            Phone(phone.symbol, *(min(max(item.offset + time, start), end) for time in (phone.start, phone.end)))
            for phone in span.phones
        )
        spans.append(Span(start, end, span.confidence * scale, span.status, phones))
        at = end
    spans += [Span(at, at, 0.0, WordStatus.NOT_FOUND)] * (count - len(spans))
    return spans


def _scale(score: float, *, english: bool) -> float:
    """What the confidences are multiplied by: words of another transcript match by chance."""
    if english:
        return min(1.0, score / _MATCHED)
    return 1.0 if score >= MATCH_THRESHOLD else score


def _warnings(absent: int, count: int, score: float) -> list[Warning]:
    warnings = []
    if score < MATCH_THRESHOLD:
        message = (
            f"the transcript does not seem to belong to this audio (match score {score:.2f}, expected at least {MATCH_THRESHOLD})"
        )
        warnings.append(Warning("TRANSCRIPT_MISMATCH", message))
    if absent:
        warnings.append(Warning("WORDS_NOT_FOUND", f"{absent} of {count} words were not found in the audio"))
    return warnings
