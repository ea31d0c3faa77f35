"""Audio that is decoded while it arrives: what its samples are, and the pieces it is decoded in. Imports no libav."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Final

from aligner_svc.domain import SAMPLE_RATE

_PIECE_SECONDS, _CONTEXT_SECONDS = 0.2, 0.02
"""Of a piece of the grid, and of what is read on each side of it: the resampler's filter reaches 2 ms."""

WIDTHS: Final = {"U8": 1, "LINEAR16": 2, "S24": 3, "S32": 4, "FLOAT32": 4, "F64": 8, "MULAW": 1, "ALAW": 1}
"""Bytes of one sample of one channel, by format: the encodings of headerless audio, and those of a WAV's samples."""


@dataclass(frozen=True, slots=True)
class Form:
    """What samples are: one of WIDTHS, Hz, and interleaved channels."""

    kind: str
    rate: int
    channels: int

    @property
    def frame(self) -> int:
        """Bytes of a sample of all channels."""
        return WIDTHS[self.kind] * self.channels


@dataclass(frozen=True, slots=True)
class WaveStart:
    """Where a WAV's samples begin (bytes) and what they are; `claimed`: bytes of them that the header declares."""

    form: Form
    start: int
    claimed: int


@dataclass(frozen=True, slots=True)
class Grid:
    """Sample frames of a piece and of its context, at some rate; `out`: samples that a piece becomes."""

    piece: int
    context: int
    out: int


def grid(rate: int) -> Grid:
    """Whole periods of the two rates, so that every piece begins at a sample of both."""
    period = rate // gcd(rate, SAMPLE_RATE)
    periods = max(1, round(_PIECE_SECONDS * rate / period))
    context = -(-round(_CONTEXT_SECONDS * rate) // period) * period
    return Grid(periods * period, context, periods * (SAMPLE_RATE // gcd(rate, SAMPLE_RATE)))
