"""An engine that does as a test tells it: it holds calls, counts them, and fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aligner_svc.domain import Caller, Clip, Token, WordStatus
from aligner_svc.engines.base import Capacity, EngineReport, EngineResult, ProgressSink, Span
from aligner_svc.text import tokenise
from aligner_svc.text.transcript import words


class ScriptedEngine:
    """Engine (aligner_svc/engines/base.py) that spreads the words evenly over the clip."""

    name = "scripted-1"
    languages = frozenset({"en"})
    max_seconds = None
    capacity = Capacity(lowest=4, at_once=2)
    report = EngineReport()

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        """Calls wait here; open from the beginning."""
        self.gate.set()
        self.warm = asyncio.Event()
        """`start` waits here; set from the beginning."""
        self.warm.set()
        self.error: Exception | None = None
        """Raised by every call once it has passed the gate."""
        self.started: list[float] = []
        """Seconds of audio of every call that came in."""
        self.callers: list[Caller] = []
        self.cancelled = 0
        self.at_gate = asyncio.Semaphore(0)
        """Released once for every call that comes in."""

    async def start(self) -> None:
        await self.warm.wait()

    async def tokenise(self, transcript: str, language: str) -> Sequence[Token]:
        return words(transcript, tokenise, language)

    async def align(
        self, clip: Clip, tokens: Sequence[Token], language: str, caller: Caller, progress: ProgressSink | None = None
    ) -> EngineResult:
        self.started.append(clip.seconds)
        self.callers.append(caller)
        self.at_gate.release()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        each = clip.seconds / len(tokens)
        spans = [Span(n * each, (n + 1) * each, 0.5, WordStatus.ALIGNED) for n in range(len(tokens))]
        return EngineResult(spans, match_score=1.0)

    async def close(self) -> None:
        self.gate.set()
