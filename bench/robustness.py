"""Two parts of `make bench-accuracy`: marked recordings in rooms and in noise, and joined to an hour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt

from aligner_client import AsyncAligner
from aligner_svc.domain import Alignment, WordStatus
from bench import conditions, gold
from bench.answers import Case, align_all
from bench.material import flac

SNRS_DB = (20.0, 10.0, 0.0)
MEAN_AT_DB = 10.0
_HOUR = 3600.0  # s
_ENDS = 300.0  # s: the first and the last part of the hour
_ASTRAY = 0.5  # s

Marked = tuple[gold.Recording, gold.Samples]


@dataclass(frozen=True, slots=True)
class Result:
    """`errors` [words, 2]: seconds from the marks, of starts and ends; `found` [words]: not NOT_FOUND."""

    errors: npt.NDArray[np.float64]
    found: npt.NDArray[np.bool_]
    failed_clips: int  # without any word

    @property
    def mean_ms(self) -> float:
        """Of the words that were found."""
        return float(np.abs(self.errors[self.found]).mean()) * 1000

    def __str__(self) -> str:
        off, every = np.abs(self.errors[self.found]), float(np.abs(self.errors).mean()) * 1000
        shares = "".join(f"{float((off <= limit).mean()):8.3f}" for limit in (0.02, 0.05, 0.1))
        astray = int((off.max(axis=1) > _ASTRAY).sum())
        missing = int((~self.found).sum())
        return f"{len(self.found):6d}{missing:9d}{self.failed_clips:8d}{every:8.1f}{self.mean_ms:8.1f}{shares}{astray:8d}"

    def only(self, chosen: npt.NDArray[np.bool_]) -> Result:
        return Result(self.errors[chosen], self.found[chosen], self.failed_clips)


HEADER = f"{'':<16} words  missing  failed  all_ms  mae_ms    le20    le50   le100  >500ms"
"""all_ms: the mean error of all words, also of those that are NOT_FOUND, where they were put; the rest: of the words found."""


def result(marks: Sequence[gold.Rows], alignments: Sequence[Alignment]) -> Result:
    """Raises ValueError if the text was split into other words than the marks have."""
    errors, found, failed = [], [], 0
    for words, alignment in zip(marks, alignments, strict=True):
        pairs = zip(words, alignment.words, strict=True)
        errors += [(word.start - mark["start"], word.end - mark["end"]) for mark, word in pairs]
        own = [word.status is not WordStatus.NOT_FOUND for word in alignment.words]
        found += own
        failed += not any(own)
    return Result(np.array(errors), np.array(found), failed)


def versions(marked: Sequence[Marked], seed: int) -> Iterator[tuple[str, list[gold.Samples]]]:
    """(name, recordings) of the room and of each noise at each ratio."""
    yield f"room {conditions.T60:g} s", [conditions.with_room(audio, seed + n) for n, (_, audio) in enumerate(marked)]
    for kind in conditions.NOISES:
        noises = [
            conditions.noise(kind, len(audio), seed + n, [other for r, other in marked if r.speaker != recording.speaker])
            for n, (recording, audio) in enumerate(marked)
        ]
        for snr in SNRS_DB:
            pairs = zip(marked, noises, strict=True)
            yield f"{kind} {snr:g} dB", [conditions.with_noise(audio, noise, snr) for (_, audio), noise in pairs]


async def backgrounds(target: str, seed: int) -> Mapping[str, Result]:
    """Prints and returns a line for every version."""
    print(f"\n== timit in a room and in noise (seed {seed})\n{HEADER}")
    marked = [(item, gold.samples(item.audio)) for item in gold.recordings("timit")]
    found: dict[str, Result] = {}
    for name, recordings in versions(marked, seed):
        cases = [Case(item.name, gold.wav(audio), item.text) for (item, _), audio in zip(marked, recordings, strict=True)]
        answers = await align_all(target, cases)
        found[name] = result([item.words for item, _ in marked], [answers[item.name] for item, _ in marked])
        print(f"{name:<16}{found[name]}", flush=True)
    chosen = [f"room {conditions.T60:g} s", *(f"{kind} {MEAN_AT_DB:g} dB" for kind in conditions.NOISES)]
    every = np.mean([np.abs(found[name].errors).mean() for name in chosen]) * 1000
    print(f"mean of {', '.join(chosen)}: {np.mean([found[name].mean_ms for name in chosen]):.1f} ms, {every:.1f} ms of all words")
    return found


async def hour(target: str, seed: int) -> Result:
    """Prints how far words are off at both ends of an hour of joined recordings, and returns that of the whole."""
    items, draw = gold.recordings("timit"), Random(seed)
    parts: list[gold.Samples] = []
    texts: list[str] = []
    marks: list[dict[str, float | str]] = []
    at = 0
    while at < _HOUR * gold.RATE:
        item = draw.choice(items)
        begin = at / gold.RATE
        marks += [{"text": w["text"], "start": w["start"] + begin, "end": w["end"] + begin} for w in item.words]
        parts.append(gold.samples(item.audio))
        texts.append(item.text)
        at += len(parts[-1])
    async with AsyncAligner(target) as client:
        answer = await client.stream_align(flac(np.concatenate(parts)), " ".join(texts), timeout=1800)
    whole = result([marks], [answer])
    middles = np.array([float(mark["start"]) for mark in marks])
    print(f"\n== an hour of joined recordings of timit (seed {seed})\n{HEADER}")
    last = middles[-1] - _ENDS
    for name, chosen in (("first 5 min", middles < _ENDS), ("last 5 min", middles > last), ("all", middles >= 0)):
        print(f"{name:<16}{whole.only(chosen)}")
    return whole
