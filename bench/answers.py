"""Asks a running service for many alignments, a few at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from aligner_client import AsyncAligner, InvalidArgumentError
from aligner_svc.domain import Alignment

AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Case:
    key: str
    audio: bytes
    text: str


async def align_all(target: str, cases: Iterable[Case], refused: dict[str, str] | None = None) -> dict[str, Alignment]:
    """By key. `refused` gets the reasons of the cases whose transcript or audio is refused, which without it end the run."""
    answers: dict[str, Alignment] = {}
    slots = asyncio.Semaphore(AT_ONCE)
    async with AsyncAligner(target) as client:

        async def one(case: Case) -> None:
            async with slots:
                try:
                    answers[case.key] = await client.align(case.audio, case.text, timeout=1800)
                except InvalidArgumentError as error:
                    if refused is None:
                        raise
                    refused[case.key] = error.reason

        await asyncio.gather(*(one(case) for case in cases))
    return answers
