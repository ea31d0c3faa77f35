"""Subtitles made wrong on purpose, and re-timed: offset, drift, a scene cut, an advert or what comes inserted, cues missing.

The film is recordings of timit one after another; a cue is up to six words of one, from the first word's start to the last one's
end. `make bench-accuracy` prints the table; docs/retiming.md has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import numpy as np

from aligner_client import AsyncAligner
from aligner_client.retiming import Cue, CueStatus, SubtitleFile, TranscriptFormat
from bench import gold

SEED = 50_000
TOLERANCE = 0.1
"""Seconds that a cue may be off at either end."""
_MINUTES = 8
_CUE_WORDS = 6
_CUT, _ADVERT = 60.0, 30.0
_TEASED = 60.0
"""Seconds after an advert of what comes, from which on the film says what the advert has said, twice over."""
_DRIFT = 0.04
_OFFSET = 2.5


@dataclass(frozen=True, slots=True)
class Line:
    """A cue of the right file, s."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Film:
    """`right`: where each cue of the wrong file belongs; None: it is not said."""

    name: str
    audio: gold.Samples
    wrong: Sequence[Line]
    right: Sequence[tuple[float, float] | None]


def _speech(items: Sequence[gold.Recording], draw: Random, seconds: float) -> tuple[gold.Samples, list[Line]]:
    parts: list[gold.Samples] = []
    lines: list[Line] = []
    at = 0
    while at < seconds * gold.RATE:
        item = draw.choice(items)
        begin = at / gold.RATE
        for first in range(0, len(item.words), _CUE_WORDS):
            words = item.words[first : first + _CUE_WORDS]
            lines.append(Line(words[0]["start"] + begin, words[-1]["end"] + begin, " ".join(str(word["text"]) for word in words)))
        parts.append(gold.samples(item.audio))
        at += len(parts[-1])
    return np.concatenate(parts), lines


def films() -> list[Film]:
    """One of each kind."""
    draw = Random(SEED)
    items = gold.recordings("timit")
    speakers = sorted({item.speaker for item in items})
    said = [item for item in items if item.speaker in speakers[::2]]
    sentences = {item.text for item in said}  # an advert says others than the film; all of timit's speakers say two alike
    others = [item for item in items if item.speaker in speakers[1::2] and item.text not in sentences]
    audio, lines = _speech(said, draw, _MINUTES * 60)
    own = [(line.start, line.end) for line in lines]
    made = [
        Film(f"offset {_OFFSET} s", audio, _warped(lines, lambda time: time + _OFFSET), own),
        Film(f"drift {_DRIFT:.0%}", audio, _warped(lines, lambda time: time * (1 + _DRIFT)), own),
        Film("25 for 23.976 frames", audio, _warped(lines, lambda time: time * 23.976 / 25), own),
    ]
    first = next(line.start for line in lines if line.start > _MINUTES * 20)
    cut = round(first * gold.RATE), round((first + _CUT) * gold.RATE)
    kept = [_after_cut(line, first) for line in lines]
    made.append(Film(f"{_CUT:.0f} s cut", np.concatenate([audio[: cut[0]], audio[cut[1] :]]), lines, kept))
    advert, _ = _speech(others, draw, _ADVERT)
    longer = len(advert) / gold.RATE
    later = [(start + longer, end + longer) if start >= first else (start, end) for start, end in own]
    made.append(Film(f"{_ADVERT:.0f} s inserted", np.concatenate([audio[: cut[0]], advert, audio[cut[0] :]]), lines, later))
    begin, end = (round((first + later) * gold.RATE) for later in (_TEASED, _TEASED + _ADVERT / 2))
    teaser = np.tile(audio[begin:end], 2)
    shown = [(start + _ADVERT, stop + _ADVERT) if start >= first else (start, stop) for start, stop in own]
    made.append(Film(f"{_ADVERT:.0f} s of what comes", np.concatenate([audio[: cut[0]], teaser, audio[cut[0] :]]), lines, shown))
    some = sorted(draw.sample(range(len(lines)), len(lines) * 9 // 10))
    made.append(
        Film("10 % of cues missing", audio, _warped([lines[n] for n in some], lambda t: t + _OFFSET), [own[n] for n in some])
    )
    return made


def _after_cut(line: Line, first: float) -> tuple[float, float] | None:
    if line.end <= first:
        return line.start, line.end
    return None if line.start < first + _CUT else (line.start - _CUT, line.end - _CUT)


def _warped(lines: Sequence[Line], clock: Callable[[float], float]) -> list[Line]:
    return [Line(clock(line.start), clock(line.end), line.text) for line in lines]


def srt(lines: Sequence[Line]) -> str:
    def time(seconds: float) -> str:
        whole = round(seconds * 1000)
        return f"{whole // 3_600_000:02d}:{whole // 60_000 % 60:02d}:{whole // 1000 % 60:02d},{whole % 1000:03d}"

    return "\n".join(f"{n}\n{time(line.start)} --> {time(line.end)}\n{line.text}\n" for n, line in enumerate(lines, 1))


async def measure(target: str) -> None:
    """Print a line for each film."""
    print(f"\n== subtitles made wrong, re-timed (timit, seed {SEED})")
    print(f"{'':24}{'cues':>6}{'within 100 ms':>15}{'start ms':>10}{'not said':>10}{'flagged':>9}{'overlaps':>10}{'text':>6}")
    async with AsyncAligner(target) as client:
        for film in films():
            text = srt(film.wrong)
            answer = await client.align(gold.wav(film.audio), text, transcript_format=TranscriptFormat.SRT, timeout=900)
            print(_row(film, text, answer.cues, answer.retimed()), flush=True)


def _row(film: Film, text: str, cues: Sequence[Cue], retimed: str) -> str:
    before, after = SubtitleFile.of(text, TranscriptFormat.SRT), SubtitleFile.of(retimed, TranscriptFormat.SRT)
    said = [(cue, right) for cue, right in zip(cues, film.right, strict=True) if right is not None]
    errors = [max(abs(cue.start - right[0]), abs(cue.end - right[1])) for cue, right in said]
    starts = np.mean([abs(cue.start - right[0]) for cue, right in said]) * 1000
    absent = [cue for cue, right in zip(cues, film.right, strict=True) if right is None]
    flagged = sum(cue.status is not CueStatus.FOUND for cue in absent)
    overlaps = sum(one.end > other.start for one, other in pairwise(after.cues))
    same = len(after.cues) == len(before.cues) and after.spoken == before.spoken
    good = sum(error <= TOLERANCE for error in errors) / len(errors)
    return (
        f"{film.name:24}{len(cues):6d}{good:15.3f}{starts:10.1f}{len(absent):10d}{flagged:9d}{overlaps:10d}"
        f"{'same' if same else 'other':>6}"
    )
