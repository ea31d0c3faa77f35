"""The course of the work on one recording, told as stages of its call: where a call that fails had got to as well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from aligner_svc.audio.decode import Decoded
from aligner_svc.domain import Alignment
from aligner_svc.pipeline import Observer, Stage
from aligner_svc.workers import Buffer
from interceptors.calls.call import current_call
from interceptors.calls.hooks import Scanning
from interceptors.calls.stages import add_stage, reason_of, stage


class Course:
    """Made when the work begins. Other processes do most of it and say how long it took; beginnings are reckoned.

    `text` is reading the transcript, `decode` the decoding, `window` each part of a recording that is aligned in parts,
    `queue` the waiting for a free process or device, and `align` the work of the engine.
    """

    def __init__(self, audio_bytes: int, observe: Observer) -> None:
        """`observe` is told what this is told."""
        self._bytes = audio_bytes
        self._observe = observe
        self._under_way = "text"
        self._since = time.perf_counter()
        self._aligned = 0.0
        self._window = 0.0

    def observe(self, stage: Stage, aligned: float, total: float) -> None:
        """As the pipeline tells it."""
        now = time.perf_counter()
        if stage is Stage.DECODING:
            add_stage("text", self._since, now - self._since)
            self._under_way, self._since = "decode", now
        elif self._under_way != "align":
            self._under_way, self._since, self._window = "align", now, now
        elif aligned > self._aligned:
            if self._aligned or aligned < total:  # one window is the whole of it, which `align` tells
                add_stage("window", self._window, now - self._window, audio_from=self._aligned, audio_to=aligned)
            self._aligned, self._window = aligned, now
        self._observe(stage, aligned, total)

    def decoded(self, decoded: Decoded) -> None:
        """Decoding went well."""
        seconds = decoded.clip.seconds
        add_stage(
            "decode",
            self._since + decoded.queued,
            decoded.busy,
            bytes=self._bytes,
            container=decoded.container,
            audio_seconds=seconds,
        )
        self._under_way = ""

    def done(self, alignment: Alignment) -> None:
        """So did everything."""
        timing = alignment.timing
        now = time.perf_counter()
        add_stage("queue", now - timing.align - timing.queue, timing.queue)
        add_stage("align", now - timing.align, timing.align, words=len(alignment.words))

    def failed(self, error: BaseException) -> None:
        """It ended like this. What was under way took until now, waiting included."""
        if self._under_way:
            add_stage(self._under_way, self._since, time.perf_counter() - self._since, reason_of(error), bytes=self._bytes)


async def scanned_first(audio: Buffer, work: Coroutine[Any, Any, Alignment]) -> Alignment:
    """The outcome of `work`, which begins when `audio` has passed. Raises as it does, and RefusedError."""
    scan = _scan()
    try:
        seconds = 0.0 if scan is None else await _verdict(scan, audio)
    except BaseException:
        work.close()
        raise
    alignment = await work
    return _timed(alignment, seconds, seconds)


async def scanned_meanwhile(audio: Buffer, work: Coroutine[Any, Any, Alignment]) -> Alignment:
    """The outcome of `work`, which is held back until `audio` has passed, and ended when it does not.

    clamd begins to look when an upload is complete: 10 MB take it 0.2 s, in which a stream, that may be long, would stand still.
    What it finds would be decoded in the sandbox by then. Raises as `work` does, and RefusedError, which goes first.
    """
    scan = _scan()
    if scan is None:
        return await work
    try:
        async with asyncio.TaskGroup() as group:
            verdict = group.create_task(_verdict(scan, audio))
            del audio
            try:
                alignment = await work
            except Exception:
                await verdict  # an infected upload is told so, whatever else is wrong with it
                raise
            done = time.perf_counter()
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return _timed(alignment, verdict.result(), time.perf_counter() - done)


def _scan() -> Scanning | None:
    call = current_call()
    return None if call is None else call.scan


async def _verdict(scan: Scanning, audio: Buffer) -> float:
    """Seconds that it took."""
    with stage("scan", bytes=memoryview(audio).nbytes) as scanning:
        await scan.verdict(audio)
    return scanning.seconds


def _timed(alignment: Alignment, scan: float, held_back: float) -> Alignment:
    timing = alignment.timing
    return replace(alignment, timing=replace(timing, scan=scan, total=timing.total + held_back))
