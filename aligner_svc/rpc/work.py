"""The course of the work on one recording, told as stages of its call: where a call that fails had got to as well."""

from __future__ import annotations

import time

from aligner_svc.audio.decode import Decoded
from aligner_svc.domain import Alignment
from aligner_svc.pipeline import Observer, Stage
from interceptors.calls.stages import add_stage, reason_of


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
