"""The work for one call, each part a stage of it: scan, wait for a place, decode, charge, align."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Final

from aligner_svc.audio.decode import Decoded
from aligner_svc.domain import Alignment, Caller
from aligner_svc.pipeline import Job, JobHooks, Observer, Pipeline, Stage, ignore
from aligner_svc.telemetry.logs.redaction import conceal
from aligner_svc.workers import Buffer
from interceptors.calls.call import Call, Context, current_call
from interceptors.calls.hooks import UploadScan, WorkTimer
from interceptors.calls.stages import add_stage, reason_of, stage

_FREE_CHARACTERS: Final = 5_000
_CHARACTERS_A_SECOND: Final = 2_500
"""Of a transcript, those that cost nothing, and how many of the rest cost as much as a second of audio. The alignment of a second
takes 20 ms of a core, so many characters of prose 5 ms, and of "5%" over and over 24 ms."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work has come. `aligned` and `total` in seconds of audio; `total` is 0 while unknown."""

    stage: Stage
    aligned: float
    total: float


class Work:
    """Runs jobs for calls, with what the guards lend the call: its scan, its admission and its meter."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def align(self, job: Job, audio: Buffer, caller: Caller) -> Alignment:
        """The alignment of `audio`, which is scanned first. Raises AlignerError and CallRefusedError."""
        for _, text in job.transcripts:
            conceal(text)
        call = current_call()
        seconds = 0.0 if call is None or call.scan is None else await pass_scan(call.scan, audio)
        running = self._run(job, audio, caller, ignore)
        del audio  # only the decoder needs it
        alignment = await running
        return with_scan(alignment, seconds, seconds)

    async def stream(self, job: Job, audio: Buffer, caller: Caller) -> AsyncGenerator[Progress | Alignment, None]:
        """Progress while the job runs, the latest alone if it is not fetched in time; last the alignment. Raises like `align`."""
        for _, text in job.transcripts:
            conceal(text)
        latest: asyncio.Queue[Progress] = asyncio.Queue(maxsize=1)

        def observe(stage: Stage, aligned: float, total: float) -> None:
            if latest.full():
                latest.get_nowait()
            latest.put_nowait(Progress(stage, aligned, total))

        running = asyncio.create_task(self._run_while_scanned(job, audio, caller, observe))
        del audio  # an upload may be hundreds of MB, and only the decoder needs it
        try:
            while not running.done():
                fetched = asyncio.create_task(latest.get())
                try:
                    await asyncio.wait((running, fetched), return_when=asyncio.FIRST_COMPLETED)
                    if fetched.done():
                        yield fetched.result()
                finally:
                    fetched.cancel()
            yield await running
        finally:
            running.cancel()
            del running  # its error has this frame in its traceback: a cycle that would keep the recording until it is collected

    async def _run_while_scanned(self, job: Job, audio: Buffer, caller: Caller, observe: Observer) -> Alignment:
        """The alignment, held back until `audio` has passed the scan; the work is cancelled if it does not.

        clamd begins when an upload is complete and takes 0.2 s for 10 MB, in which a stream would stand still. An infected
        upload may be decoded meanwhile, in the sandbox. A refusal by the scan takes precedence over an error of the work.
        """
        call = current_call()
        running = self._run(job, audio, caller, observe)
        if call is None or call.scan is None:
            del audio
            return await running
        try:
            async with asyncio.TaskGroup() as group:
                verdict = group.create_task(pass_scan(call.scan, audio))
                del audio
                try:
                    alignment = await running
                except Exception:
                    await verdict
                    raise
                done = time.perf_counter()
        except BaseExceptionGroup as failed:
            first = failed.exceptions[0]
            failed.__traceback__ = None  # it leads to the frame of TaskGroup.__aexit__, which holds this error: a cycle
        else:
            return with_scan(alignment, verdict.result(), time.perf_counter() - done)
        del verdict, group
        try:
            raise first  # not while the group, which holds it, is handled: that would be its context
        finally:
            del first  # as in `stream`

    async def _run(self, job: Job, audio: Buffer, caller: Caller, observe: Observer) -> Alignment:
        """The alignment, once there is a place for the call; the audio is charged before the engine works on it."""
        call = current_call()
        async with nullcontext(WorkTimer()) if call is None or call.admission is None else call.admission.working() as timer:
            recorder = _StageRecorder(memoryview(audio).nbytes, observe)

            async def text(characters: int) -> None:
                seconds = charged_seconds(characters)
                if seconds and call is not None and call.meter is not None:
                    await call.meter.text(seconds)

            seconds = 0.0  # of all channels that are aligned

            async def decoded(result: Decoded) -> None:
                nonlocal seconds
                recorder.decoded(result)
                seconds += result.clip.seconds
                if call is not None and call.meter is not None:
                    await call.meter.decoded(seconds)

            async def prolong() -> None:
                if call is not None and call.admission is not None:
                    await call.admission.prolong()

            aligning = self._pipeline.align(job, audio, caller, recorder.observe, JobHooks(prolong, text, decoded))
            del audio
            try:
                alignment = await aligning
            except BaseException as error:
                recorder.failed(error)
                raise
            recorder.succeeded(alignment)
            timing = alignment.timing
            timer.waited, timer.worked = timing.queue, timing.decode + timing.align
        return alignment


def charged_seconds(characters: int) -> float:
    """Seconds of audio that a transcript costs as much as."""
    return max(0, characters - _FREE_CHARACTERS) / _CHARACTERS_A_SECOND


def caller_of(context: Context) -> Caller:
    """Whose turn the call takes: its principal's, else its host's, however many connections that opens."""
    call = current_call()
    left = context.time_remaining()
    return Caller(_client(call), None if left is None else asyncio.get_running_loop().time() + left)


def _client(call: Call | None) -> str:
    if call is None:
        return ""
    return call.principal.name if call.principal else call.peer.rpartition(":")[0]


async def pass_scan(scan: UploadScan, audio: Buffer) -> float:
    """Return the seconds that the scan took, once `audio` has passed it. Raises CallRefusedError."""
    with stage("scan", bytes=memoryview(audio).nbytes) as scanning:
        await scan.verdict(audio)
    return scanning.seconds


def with_scan(alignment: Alignment, scan: float, waited: float) -> Alignment:
    """`waited`: seconds of the scan in which nothing else was done."""
    timing = alignment.timing
    return replace(alignment, timing=replace(timing, scan=scan, total=timing.total + waited))


class _StageRecorder:
    """Records the stages of one recording's work on its call: text, decode, window (a part of a long recording), queue, align.

    Other processes do most of the work and report how long it took; when it began is computed from that.
    """

    def __init__(self, audio_bytes: int, observe: Observer) -> None:
        """`observe` is called with everything that `observe` of this is called with."""
        self._bytes = audio_bytes
        self._observe = observe
        self._current = "text"
        self._since = time.perf_counter()
        self._aligned = 0.0
        self._window = 0.0

    def observe(self, stage: Stage, aligned: float, total: float) -> None:
        """An Observer of the pipeline."""
        now = time.perf_counter()
        if stage is Stage.DECODING:
            if self._current == "text":
                add_stage("text", self._since, now - self._since)
            self._current, self._since = "decode", now
        elif self._current != "align":
            self._current, self._since, self._window = "align", now, now
        elif aligned > self._aligned:
            if self._aligned or aligned < total:  # a single window is the whole recording, which `align` covers
                add_stage("window", self._window, now - self._window, audio_from=self._aligned, audio_to=aligned)
            self._aligned, self._window = aligned, now
        self._observe(stage, aligned, total)

    def decoded(self, decoded: Decoded) -> None:
        """Record the decoding, which succeeded."""
        add_stage(
            "decode",
            self._since + decoded.queued,
            decoded.busy,
            bytes=self._bytes,
            container=decoded.container,
            audio_seconds=decoded.clip.seconds,
        )
        self._current = ""

    def succeeded(self, alignment: Alignment) -> None:
        """Record the stages of the engine."""
        timing = alignment.timing
        now = time.perf_counter()
        add_stage("queue", now - timing.align - timing.queue, timing.queue)
        add_stage("align", now - timing.align, timing.align, words=len(alignment.words))

    def failed(self, error: BaseException) -> None:
        """Record the stage in progress as failed; its time includes waiting."""
        if self._current:
            add_stage(self._current, self._since, time.perf_counter() - self._since, reason_of(error), bytes=self._bytes)
