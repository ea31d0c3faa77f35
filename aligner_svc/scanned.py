"""The virus scan of an upload beside the work on it: before, or meanwhile where the upload was scanned as it came in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from aligner_svc.domain import Alignment
from aligner_svc.workers import Buffer
from interceptors.calls.call import current_call
from interceptors.calls.hooks import Scanning
from interceptors.calls.stages import stage


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
