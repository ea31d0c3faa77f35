"""Right times for the cues of a subtitle file whose words were aligned.

A cue takes its time from the line that it shares with its neighbours (clock.py) where they lie on one, else from its own words.
What was not heard goes with its neighbours. No cue is lost, none comes before the one before it, and none overlaps that did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise

from aligner_client.alignment import PLACED, Word, WordStatus
from aligner_client.retiming.clock import Clock, Shift
from aligner_client.retiming.files import SubtitleFile

_HEARD = 0.5
"""The least share of a cue's words that are heard where it was said."""
_FAR = 400.0
"""Milliseconds from the line of its neighbours, from which on a cue was moved by itself, or found in the wrong place."""
_SPREADS = 4.0
"""The same, in median distances of the neighbours from their line, where those are far from it."""
_SURE = 3
"""Words that must be heard of a cue that is so far from its neighbours."""


@dataclass(frozen=True, slots=True)
class Retiming:
    """What the new times must keep to. Seconds; 0: no limit, except for the leads."""

    max_shift: float = 0.0
    """A cue that would move farther goes with its nearest neighbour that does not, and is flagged."""
    lead_in: float = 0.0
    """How long before its first word a cue begins."""
    lead_out: float = 0.0
    """How long after its last word a cue stays, at least."""
    min_duration: float = 0.0
    """Unless the next cue comes sooner."""
    max_duration: float = 0.0
    frame_rate: float = 0.0
    """Frames a second that times are rounded to."""


class CueStatus(Enum):
    """How the time of a cue was found."""

    FOUND = "FOUND"
    """By its words."""
    MOVED = "MOVED"
    """It has no words, and goes with its neighbours: a sound, music, a drawing."""
    NOT_FOUND = "NOT_FOUND"
    """Its words were not heard; it goes with its neighbours."""
    DOUBTFUL = "DOUBTFUL"
    """Its few words were heard far from its neighbours, with which it goes."""
    TOO_FAR = "TOO_FAR"
    """It would have moved farther than allowed."""


@dataclass(frozen=True, slots=True)
class Cue:
    """A cue with its new time. Seconds on the clock of the film; `[char_start, char_end)` is its text in the file."""

    start: float
    end: float
    status: CueStatus
    shift: float
    """How much later it starts than in the file."""
    char_start: int
    char_end: int


@dataclass(frozen=True, slots=True)
class _Timed:
    """A cue on the way to its new time. Milliseconds; `heard`: when its speech begins and ends, None if it was not found."""

    old: tuple[int, int]
    start: float
    end: float
    status: CueStatus
    heard: tuple[float, float] | None = None


def retime(file: SubtitleFile, words: Sequence[Word], audio_start: float = 0.0, options: Retiming | None = None) -> list[Cue]:
    """The cues in the order of the file.

    `words`: of the alignment of `file.spoken`, with offsets in it and times in seconds from the first sample, which is played at
    `audio_start` of the film.
    """
    options = options or Retiming()
    cues = [file.cues[place] for place in file.in_time]
    found = _found(file, words, audio_start * 1000)
    clock = Clock.of([Shift(cue.start, at.start - cue.start) for cue, at in zip(cues, found, strict=True) if at.heard])
    timed = [_placed(cue, clock) for cue in found]
    timed = _not_too_far(timed, options.max_shift * 1000)
    times = _apart(timed, _led(timed, options), options.frame_rate)
    answer: list[Cue | None] = [None] * len(cues)
    for place, cue, at, (start, end) in zip(file.in_time, cues, timed, times, strict=True):
        answer[place] = Cue(start / 1000, end / 1000, at.status, (start - cue.start) / 1000, *cue.text_at)
    return [cue for cue in answer if cue is not None]


def _found(file: SubtitleFile, words: Sequence[Word], audio_start: float) -> list[_Timed]:
    """By its own words, or those that it repeats, where each cue was said."""
    places = file.places()
    own: list[list[Word]] = [[] for _ in file.cues]
    for word in words:
        if word.status is not WordStatus.SKIPPED:
            own[places.cue(word.char_start)].append(word)
    found: list[_Timed] = []
    repeats = file.repeats()
    for number, said in enumerate(own):
        if number in repeats:
            found.append(found[repeats[number]])
            continue
        cue = file.cues[file.in_time[number]]
        timed = _Timed((cue.start, cue.end), cue.start, cue.end, CueStatus.NOT_FOUND if said else CueStatus.MOVED)
        heard = [word for word in said if word.status in PLACED]
        if len(heard) >= _HEARD * len(said) and any(word.status is WordStatus.ALIGNED for word in heard):
            # Words that were not heard at its ends take as long as their share of the characters.
            begin, length = places.starts[number], max(1, cue.text_at[1] - cue.text_at[0])
            pace = (cue.end - cue.start) / length
            first, last = said.index(heard[0]), len(said) - 1 - said[::-1].index(heard[-1])
            before = (heard[0].char_start - begin) * pace if first else 0.0
            behind = (begin + length - heard[-1].char_end) * pace if last < len(said) - 1 else 0.0
            start = heard[0].start * 1000 + audio_start - before
            end = max(start, heard[-1].end * 1000 + audio_start + behind)
            timed = replace(timed, start=start, end=end, status=CueStatus.FOUND, heard=(start, end))
            if len(heard) < _SURE and len(said) <= _SURE:
                timed = replace(timed, status=CueStatus.DOUBTFUL)  # until its neighbours agree
        found.append(timed)
    return found


def _placed(cue: _Timed, clock: Clock) -> _Timed:
    """By the line of its neighbours, or its own words."""
    start, end = cue.old
    part = clock.part(start)
    if part is None:
        return replace(cue, start=start, end=end)
    line = part.at(start), part.at(end)
    if cue.heard is None:
        return replace(cue, start=line[0], end=line[1])
    near = abs(cue.heard[0] - line[0]) <= max(_FAR, _SPREADS * part.spread)
    if near and part.even:
        return replace(cue, start=line[0], end=line[1], status=CueStatus.FOUND)
    if near or cue.status is CueStatus.FOUND:
        return replace(cue, status=CueStatus.FOUND)
    return replace(cue, start=line[0], end=line[1], heard=None)


def _not_too_far(cues: list[_Timed], most: float) -> list[_Timed]:
    """With the cues that would move by more than `most` ms moved like the nearest that does not, or not at all."""
    allowed = [place for place, cue in enumerate(cues) if not most or abs(cue.start - cue.old[0]) <= most]
    if len(allowed) == len(cues):
        return cues
    near = _nearest(len(cues), allowed)
    kept = set(allowed)
    changed = []
    for place, cue in enumerate(cues):
        if place not in kept:
            neighbour = near[place]
            by = 0.0 if neighbour is None else cues[neighbour].start - cues[neighbour].old[0]
            cue = replace(cue, start=cue.old[0] + by, end=cue.old[1] + by, status=CueStatus.TOO_FAR, heard=None)  # noqa: PLW2901
        changed.append(cue)
    return changed


def _nearest(count: int, allowed: Sequence[int]) -> list[int | None]:
    """For each place, the nearest of `allowed`, which is sorted."""
    nearest: list[int | None] = [None] * count
    reach = 0
    for place in range(count):
        while reach + 1 < len(allowed) and abs(allowed[reach + 1] - place) <= abs(allowed[reach] - place):
            reach += 1
        nearest[place] = allowed[reach] if allowed else None
    return nearest


def _led(cues: Sequence[_Timed], options: Retiming) -> list[tuple[float, float]]:
    """The times with leads and durations as asked for. Cues may overlap."""
    times = []
    for cue in cues:
        start, end = cue.start - options.lead_in * 1000, cue.end
        if cue.heard and options.lead_out:
            end = max(end, cue.heard[1] + options.lead_out * 1000)
        end = max(end, start + options.min_duration * 1000)
        if options.max_duration:
            end = min(end, start + options.max_duration * 1000)
        times.append((start, end))
    return times


def _apart(cues: Sequence[_Timed], times: Sequence[tuple[float, float]], frame_rate: float) -> list[tuple[int, int]]:
    """Whole ms in order, apart unless the file had them overlap, and at least one long while there is room."""
    starts = _in_order(cues, times)
    answer = []
    for place, (cue, start, (_, end)) in enumerate(zip(cues, starts, times, strict=True)):
        stop = max(start + 1, round(end))
        if place + 1 < len(cues) and cue.old[1] <= cues[place + 1].old[0]:
            stop = max(start, min(stop, starts[place + 1]))
        answer.append((start, stop))
    if not frame_rate:
        return answer
    frames = [(round(start * frame_rate / 1000), round(stop * frame_rate / 1000)) for start, stop in answer]
    return [(round(start * 1000 / frame_rate), round(stop * 1000 / frame_rate)) for start, stop in frames]


def _in_order(cues: Sequence[_Timed], times: Sequence[tuple[float, float]]) -> list[int]:
    """The starts. Cues that were found keep theirs; others share what is between those, 1 ms each if there is no more."""
    starts = [max(0, round(start)) for start, _ in times]
    fixed = [place for place, cue in enumerate(cues) if cue.status is CueStatus.FOUND]
    for before, behind in pairwise(fixed):
        starts[behind] = max(starts[behind], starts[before])
    for before, behind in pairwise([-1, *fixed, len(cues)]):
        limit = starts[behind] if behind < len(cues) else None
        free = range(before + 1, behind)
        reached = starts[before] if before >= 0 else 0
        stop = max(reached, round(times[before][1])) if before >= 0 else 0
        if limit is not None:
            stop = max(reached, min(stop, limit - len(free)))
        for place in free:
            with_before = before >= 0 and cues[place].old[0] < cues[before].old[1]  # shown at once in the file
            least = reached if with_before else max(reached, stop)
            at = max(starts[place], least)
            if limit is not None:
                at = max(least, min(at, limit - (behind - place)))
            starts[place] = at
            reached = at + 1 if limit is None else min(at + 1, limit)
    return starts
