"""The clock of a subtitle file against that of its film: cues that are off by the same, apart by steps and by drift.

A file of another version of the film is off by an offset, by a drift (25 against 23.976 frames a second are 4.3 %), and by
another offset behind each scene that was cut or added. So the shifts of its cues lie on a few straight lines of one slope. A
line through many cues is known better (to some 10 ms) than any one of them, and keeps what an editor gave each cue besides
speech: how long before and behind it stays.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from statistics import median
from typing import NamedTuple

_NEAR = 400.0
"""Milliseconds between the shifts of cues that are off by the same: an editor's cue begins up to so long before its speech."""
_AGREEING = 3
"""Cues in a row that make a new part: one or two may have been found in the wrong place."""
_APART = 12
"""Cues between two of which the slope is measured first, fewer in a short file: few such pairs have a step between them."""
_SLOPED = 6
"""Cues that it takes to measure a slope."""
_STEEP = 0.12
"""The greatest slope: of 25 frames against 24 and 23.976 it is 0.04, of films that were sped up for television 0.1."""
_EVEN = 120.0
"""Milliseconds, the median distance of cues from their line, and from each other, up to which the line is trusted instead."""


class Shift(NamedTuple):
    """Of a cue whose words were found: its start in the file, and how far from it they begin, in ms."""

    start: float
    by: float


@dataclass(frozen=True, slots=True)
class Part:
    """Cues of one line: `by = slope * start + offset`."""

    begin: float
    """The start of its first cue in the file, ms."""
    end: float
    offset: float
    slope: float
    spread: float
    """The median distance of its cues from the line, and from each other, ms."""

    @property
    def even(self) -> bool:
        """Whether its cues lie on the line, so that their times are taken from it."""
        return self.spread <= _EVEN

    def at(self, time: float) -> float:
        """Where a time of the file is in the film, ms."""
        return time + self.slope * time + self.offset


@dataclass(frozen=True, slots=True)
class Clock:
    """The parts of a file, in order; none if nothing was found."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, shifts: Sequence[Shift]) -> Clock:
        """`shifts` in order of their starts; at most n log n steps."""
        common = _slope(shifts, min(_APART, len(shifts) // 2))
        level = [shift.by - common * shift.start for shift in shifts]
        jump = median([abs(behind - before) for before, behind in pairwise(level)] or [0.0])
        parts = []
        for first, last in pairwise([*_steps(level), len(shifts)]):
            members = shifts[first:last]
            slope = _slope(members, len(members) // 2) or common
            levels = [shift.by - slope * shift.start for shift in members]
            offset = median(levels)
            off = median(abs(value - offset) for value in levels)
            spread = max(off, jump) if len(members) >= _AGREEING else inf
            parts.append(Part(members[0].start, members[-1].start, offset, slope, spread))
        return cls(tuple(parts))

    def part(self, time: float) -> Part | None:
        """The part that a time of the file belongs to, between two of them the nearer; None if there is none."""
        after = bisect_right([part.begin for part in self.parts], time)
        near = self.parts[max(0, after - 1) : after + 1]
        return min(near, key=lambda part: max(part.begin - time, time - part.end, 0.0), default=None)


def _slope(shifts: Sequence[Shift], apart: int) -> float:
    """The median slope between cues that are `apart`; 0 for too few, and for one that no other version of a film has."""
    if len(shifts) < _SLOPED:
        return 0.0
    slopes = [
        (behind.by - before.by) / (behind.start - before.start)
        for before, behind in zip(shifts, shifts[apart:], strict=False)
        if behind.start > before.start
    ]
    found = median(slopes) if slopes else 0.0
    return found if abs(found) <= _STEEP else 0.0


def _steps(level: Sequence[float]) -> list[int]:
    """Where the parts begin."""
    if not level:
        return []
    begins = [0]
    recent: list[float] = []
    for place, value in enumerate(level):
        if recent and abs(value - median(recent)) > _NEAR:
            coming = level[place : place + _AGREEING]
            if len(coming) == _AGREEING and max(coming) - min(coming) <= _NEAR:
                begins.append(place)
                recent = [value]
            continue
        recent = [*recent[-14:], value]
    return begins
