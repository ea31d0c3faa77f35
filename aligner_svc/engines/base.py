"""What the pipeline asks of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from aligner_svc.domain import Clip, ProgressSink, Token, Warning, WordStatus


@dataclass(frozen=True, slots=True)
class Span:
    """One token in time. Seconds from the first sample; confidence 0..1."""

    start: float
    end: float
    confidence: float
    status: WordStatus


@dataclass(frozen=True, slots=True)
class EngineResult:
    """`spans[i]` belongs to `tokens[i]`. `queued` and `busy` are seconds of waiting and of work."""

    spans: Sequence[Span]
    match_score: float
    warnings: Sequence[Warning] = ()
    queued: float = 0.0
    busy: float = 0.0


class Engine(Protocol):
    """An aligner. One instance serves every call of the process."""

    @property
    def name(self) -> str:
        """Engine and version, e.g. "pocketsphinx-5.1.1"."""

    @property
    def languages(self) -> frozenset[str]:
        """Primary language subtags it aligns."""

    async def start(self) -> None:
        """Load and warm up; the server reports ready only after it returns."""

    async def align(
        self, clip: Clip, tokens: Sequence[Token], language: str, progress: ProgressSink | None = None
    ) -> EngineResult:
        """Align one clip. `tokens` is never empty; `language` is one of `languages`.

        Raises LimitExceededError when its queue is full and UnavailableError when it
        lost the same call twice. Cancelling the task frees what it holds.
        """

    async def close(self) -> None:
        """Release processes and memory. Idempotent."""
