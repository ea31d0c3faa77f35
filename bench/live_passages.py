"""`make bench-live ARGS=--passages`: recordings that do not follow their text, streamed live.

Four minutes of eight speakers, joined from hand-marked sentences of TIMIT. Text of a minute is left out, or has no audio; a
minute of music, noise or German is put in; there is half the text, or another one; a minute has longer pauses. The aligner runs
in this process, and the audio comes in pieces of 100 ms by its own clock, as fast as it is worked on.

    found again   seconds from the end of the passage to the first of five words in a row that are right
    off           said words that are more than 0.5 s from their marks, or were not found
    absent        words that were not said, and how many of them are NOT_FOUND
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest

import numpy as np

from aligner_svc.domain import Token, WordStatus
from aligner_svc.engines import live
from aligner_svc.engines.base import Span
from aligner_svc.engines.live import LiveAudio, LiveText
from aligner_svc.engines.pocketsphinx.boundaries import BoundaryRefiner
from aligner_svc.engines.pocketsphinx.engine import _spans
from aligner_svc.engines.pocketsphinx.ladder import Ladder
from aligner_svc.engines.pocketsphinx.lexicon import Speller
from aligner_svc.engines.pocketsphinx.phonemes import PhonemeModel
from aligner_svc.engines.pocketsphinx.recogniser import Recogniser
from aligner_svc.engines.pocketsphinx.window import WindowAligner
from aligner_svc.engines.pocketsphinx.wire import TokenSpan
from aligner_svc.engines.windows import AlignWindow, Placed, Prefix, Windows
from aligner_svc.text import tokenise
from aligner_svc.text.transcript import words
from bench import conditions, gold
from bench.gold import RATE, Rows, Samples

_OFF, _IN_A_ROW = 0.5, 5
GAP = 0.2
"""Seconds in which nobody speaks: where pauses are made longer."""
_PAUSED = 60.0
"""Seconds of speech into which pauses are put."""
_FROM, _PASSAGE = 90.0, 60.0
"""Seconds: where a passage begins, and how long it is."""


@dataclass(frozen=True, slots=True)
class Case:
    """`rows`: words of the text; start and end None: it was not said. `until`: the end of the passage, seconds."""

    name: str
    samples: Samples
    rows: Rows
    until: float = 0.0


def cases() -> Iterator[Case]:
    one, four, eight = gold.recordings("timit_long")
    samples, rows = gold.samples(eight.audio), eight.words
    gap = [(before["end"] + after["start"]) / 2 for before, after in pairwise(rows) if after["start"] - before["end"] > 0.1]
    begin = min(gap, key=lambda at: abs(at - _FROM))
    end = min(gap, key=lambda at: abs(at - _FROM - _PASSAGE))
    first, last = int(begin * RATE), int(end * RATE)
    out = [row for row in rows if not begin < row["start"] < end]
    yield Case("as it was said", samples, rows)
    yield Case("a minute of text missing", samples, out, end)
    cut = [
        _moved(row, begin - end) if row["start"] > end else {**row, "start": None} if row["start"] > begin else row
        for row in rows
    ]
    yield Case("a minute of text not said", np.concatenate([samples[:first], samples[last:]]), cut, begin)
    size = int(_PASSAGE * RATE)
    level = float(np.sqrt((samples.astype(float) ** 2).mean()))
    later = [_moved(row, _PASSAGE) if row["start"] > begin else row for row in rows]
    german = next(clip for clip in sorted((gold.GOLD / "sppas").glob("DEU*.flac")))
    for name, sound in (
        ("a minute of music", conditions.noise("music", size, 1, ())),
        ("a minute of noise", conditions.noise("pink", size, 1, ())),
        ("a minute of German", np.resize(gold.samples(german), size).astype(float)),
    ):
        inserted = np.clip(sound * level / np.sqrt((sound**2).mean()), -32768, 32767).astype(np.int16)
        yield Case(name, np.concatenate([samples[:first], inserted, samples[first:]]), later, begin + _PASSAGE)
    spoken = int(_PAUSED * RATE)
    few = [row for row in rows if row["end"] <= _PAUSED]
    room = conditions.noise("pink", 16 * spoken, 1, ())
    for name, seconds, ratio_db in (
        ("pauses of 2 s", 2, None),
        ("pauses of 8 s", 8, None),
        ("pauses of 30 s", 30, None),
        ("pauses of 8 s, noise", 8, 25),
    ):
        with_pauses, moved = paused(samples[:spoken], few, seconds)
        if ratio_db is not None:
            with_pauses = conditions.with_noise(with_pauses, room[: len(with_pauses)], ratio_db)
        yield Case(name, with_pauses, moved)
    yield Case("half the text", samples, rows[: len(rows) // 2])
    said = {row["text"].lower() for row in one.words}
    other = [{**row, "start": None} for row in four.words if row["text"].lower() not in said]
    yield Case("another text", gold.samples(one.audio), other)


def paused(samples: Samples, rows: Rows, seconds: float) -> tuple[Samples, Rows]:
    """With so much silence wherever nobody speaks for GAP."""
    parts, moved, at, shift = [], [], 0, 0.0
    quiet = np.zeros(int(seconds * RATE), np.int16)
    for row, after in zip_longest(rows, rows[1:]):
        moved.append({**row, "start": row["start"] + shift, "end": row["end"] + shift})
        if after is None or after["start"] - row["end"] >= GAP:
            cut = len(samples) if after is None else int((row["end"] + after["start"]) / 2 * RATE)
            parts += [samples[at:cut], quiet]
            at, shift = cut, shift + len(quiet) / RATE
    return np.concatenate(parts), moved


def _moved(row: dict[str, object], seconds: float) -> dict[str, object]:
    return {**row, "start": row["start"] + seconds, "end": row["end"] + seconds}  # type: ignore[operator]


class Aligner:
    """One recording at a time."""

    def __init__(self) -> None:
        speller = Speller()
        self._windows = WindowAligner(Ladder(Recogniser(speller), PhonemeModel()), speller, BoundaryRefiner())

    async def follow(self, samples: Samples, text: str) -> tuple[list[Span], list[float]]:
        """The words, and how long after its end each of them was final."""
        audio = LiveAudio()
        tokens = [token for token in words(text, tokenise, "en") if token.spoken]
        given = iter([tokens])

        async def more() -> Sequence[Token]:
            return next(given, ())

        spans: list[Span] = []
        lags: list[float] = []

        def final(placed: list[Placed[TokenSpan]]) -> None:
            ready = _spans(placed, len(placed), audio.length / RATE, 1.0, spans[-1].end if spans else 0.0)
            spans.extend(ready)
            lags.extend(audio.length / RATE - span.end for span in ready if span.status is not WordStatus.NOT_FOUND)

        coming = LiveText(audio, more)
        task = asyncio.create_task(Windows(audio, coming, self._aligner(), final, settle=self._aligner(growing=True)).run())
        for at in range(0, len(samples), RATE // 10):
            audio.append((samples[at : at + RATE // 10] / 32768).astype(np.float32))
            for _ in range(12):
                await asyncio.sleep(0)
        audio.end()
        coming.notify(ended=True)
        await task
        at = spans[-1].end if spans else 0.0
        spans += [Span(at, at, 0.0, WordStatus.NOT_FOUND)] * (len(tokens) - len(spans))
        return spans, lags

    def _aligner(self, *, growing: bool = False) -> AlignWindow[TokenSpan]:
        async def align(samples: Samples, offered: Sequence[Token], last: bool, complete: bool) -> Prefix[TokenSpan]:
            return self._windows.align(samples, [token.spoken for token in offered], last, complete, live=growing)

        return align


def line(case: Case, spans: Sequence[Span], lags: Sequence[float]) -> str:
    right: list[tuple[float, bool]] = []
    absent = flagged = 0
    for row, span in zip(case.rows, spans, strict=True):
        missing = span.status is WordStatus.NOT_FOUND
        if row["start"] is None:
            absent += 1
            flagged += missing
        else:
            far = max(abs(span.start - row["start"]), abs(span.end - row["end"])) > _OFF
            right.append((row["start"], not missing and not far))
    after = [(start, good) for start, good in right if start >= case.until - 0.01]
    runs = (after[at : at + _IN_A_ROW] for at in range(len(after)))
    again = next((run[0][0] - case.until for run in runs if all(good for _, good in run)), float("nan"))
    off = sum(not good for _, good in right)
    lag = np.percentile(lags, [50, 95]) if lags else (0.0, 0.0)
    found = f"found again {again:5.1f} s  " if case.until else " " * 21
    return (
        f"{case.name:27} off {off:3} of {len(right):4} ({off / max(1, len(right)):.1%})  {found}"
        f"absent {flagged:3} of {absent:3} ({flagged / max(1, absent):.0%})  lag {lag[0]:.1f} / {lag[1]:.1f} s"
    )


def main(only: str = "") -> None:
    live._PACE = 0.0  # noqa: SLF001 - whatever comes counts as spoken
    aligner = Aligner()
    for case in cases():
        if only in case.name:
            print(line(case, *asyncio.run(aligner.follow(case.samples, " ".join(row["text"] for row in case.rows)))), flush=True)
