"""A recording that is followed: what of it is decoded, and kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from aligner_svc.config.limits import Limits
from aligner_svc.domain import SAMPLE_RATE, Alignment, Caller, Word, WordStatus
from aligner_svc.engines.base import EngineResult, Span
from aligner_svc.pipeline import Following, Job
from aligner_svc.text import tokenise
from aligner_svc.text.transcript import words
from tests.kit.waiting import eventually

PART = 10
"""Seconds."""


class Dense:
    """A decoder of an upload each byte of which holds PART seconds."""

    container, warnings = "flac", ()
    queued = busy = start = 0.0
    on_disk = False
    decoded = 0

    async def add(self, chunk: bytes) -> AsyncIterator[np.ndarray]:
        for _ in chunk:
            self.decoded += PART
            yield np.full(PART * SAMPLE_RATE, 0.1, np.float32)

    async def finish(self) -> AsyncIterator[np.ndarray]:
        async for samples in self.add(b"!"):
            yield samples

    def close(self) -> None: ...


class Slow:
    """An engine that finds a word every 30 s."""

    name = "slow"

    async def tokenise(self, transcript: str, language: str):
        return words(transcript, tokenise, language)

    async def follow(self, audio, text, language, caller, *, on_spans, progress=None) -> EngineResult:
        at = 0
        while await text.reach(1):
            if await audio.reach(at + 30 * SAMPLE_RATE) < at + 30 * SAMPLE_RATE:
                break
            at += 30 * SAMPLE_RATE
            audio.release(at)
            text.take(1)
            on_spans([Span(at / SAMPLE_RATE - 1, at / SAMPLE_RATE, 1.0, WordStatus.ALIGNED)])
        return EngineResult((), 1.0)


class Call:
    """`Following` while its engine runs."""

    def __init__(self) -> None:
        self.decoding, self.found = Dense(), list[Word]()
        self.following = Following(
            Job("", "en"),
            "en",
            Caller(),
            engine=Slow(),
            decoding=self.decoding,
            limits=Limits(),  # type: ignore[arg-type]
        )
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> Alignment:
        await self.following.begun()
        return await self.following.run(self.found.extend, lambda: None)

    async def end(self) -> Alignment:
        await self.following.end()
        return await self.task

    @property
    def kept(self) -> float:
        return sum(len(samples) for _, samples, _ in self.following._audio._pieces) / SAMPLE_RATE


async def test_a_few_bytes_that_hold_hours_wait_for_their_text_as_they_came():
    call = Call()
    await call.following.audio(bytes(30))
    await eventually(lambda: call.following._audio.text_is_short, "the engine to wait")
    for _ in range(2):
        await call.following.audio(bytes(30))
    assert call.kept == call.decoding.decoded <= 100
    assert call.following.released == 0
    await call.following.text("one two ")
    assert call.decoding.decoded <= 60 + 100
    alignment = await call.end()
    assert [word.end for word in call.found] == [30, 60]
    assert alignment.audio_seconds == PART * 91
    assert call.kept == 0


@pytest.mark.parametrize("text", ["one two ", ""])
async def test_text_that_comes_last_is_aligned_with_all_that_came_before(text):
    call = Call()
    await call.following.text(text)
    await call.following.audio(bytes(30))
    await call.following.text("three four ")
    await call.end()
    assert [word.text for word in call.found] == [*text.split(), "three", "four"]
