"""Asks a running service for many alignments, a few at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from aligner_client import AsyncAligner
from aligner_svc.domain import Alignment

UNARY_BYTES = 8 << 20
AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Case:
    key: str
    audio: bytes
    text: str


async def align_all(target: str, cases: Iterable[Case]) -> dict[str, Alignment]:
    answers: dict[str, Alignment] = {}
    slots = asyncio.Semaphore(AT_ONCE)
    async with AsyncAligner(target) as client:

        async def one(case: Case) -> None:
            async with slots:
                if len(case.audio) <= UNARY_BYTES:
                    answers[case.key] = await client.align(case.audio, case.text, timeout=300)
                else:
                    answers[case.key] = await client.stream_align(case.audio, case.text, timeout=300)

        await asyncio.gather(*(one(case) for case in cases))
    return answers
