"""Recordings and transcripts that differ by passages or words, joined at random from the hand-marked clips.

For every kind: said words that are off or lost, absent words that are flagged, and whether a mismatch is warned of. One half of
the speakers ("dev") is for choosing thresholds, the other is held out. `make bench-accuracy` prints the table.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from aligner_svc.domain import Alignment, Word, WordStatus
from bench import gold

SEED = 40_000
OFF_SECONDS = 0.5
"""A said word whose start or end is further from its mark has gone astray."""
SURE = 0.5
"""Confidence from which a word that has gone astray is counted as sure."""
MOSTLY_WRONG = 0.5
"""Share of absent words above which a TRANSCRIPT_MISMATCH is expected."""
_WIDTHS = (6, 17, 6, 17, 18, 15, 12)
_NOISE_DB = -65.0
"""Room tone between and around clips, relative to full scale."""


@dataclass(frozen=True, slots=True)
class Line:
    """A word of the transcript; `mark` is where it was said, None: it was not."""

    text: str
    mark: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Join:
    """A recording and its transcript."""

    key: str
    kind: str
    half: str
    samples: gold.Samples
    lines: Sequence[Line]

    @property
    def text(self) -> str:
        return " ".join(line.text for line in self.lines)


@dataclass(slots=True)
class _Tally:
    """Counts of one kind."""

    joins: int = 0
    said: int = 0
    off: int = 0
    off_sure: int = 0
    lost: int = 0
    absent: int = 0
    flagged: int = 0
    mostly_wrong: int = 0
    warned: int = 0
    right: int = 0
    false_alarms: int = 0

    def add(self, join: Join, alignment: Alignment) -> None:
        """Raises ValueError if the words are not those of the transcript."""
        self.joins += 1
        for line, word in zip(join.lines, alignment.words, strict=True):
            found = word.status is not WordStatus.NOT_FOUND
            if line.mark is None:
                self.absent += 1
                self.flagged += not found
                continue
            self.said += 1
            self.lost += not found
            if found:
                error = _error(line.mark, word)
                self.off += error > OFF_SECONDS
                self.off_sure += error > OFF_SECONDS and word.confidence >= SURE
        share = sum(line.mark is None for line in join.lines) / len(join.lines)
        warned = any(warning.code == "TRANSCRIPT_MISMATCH" for warning in alignment.warnings)
        self.mostly_wrong += share > MOSTLY_WRONG
        self.warned += share > MOSTLY_WRONG and warned
        self.right += share == 0
        self.false_alarms += share == 0 and warned

    def row(self) -> str:
        def part(count: int, total: int) -> str:
            return f"{count}/{total} {count / total:.1%}" if total else "-"

        return _line(
            str(self.joins),
            part(self.off, self.said),
            str(self.off_sure),
            part(self.lost, self.said),
            part(self.flagged, self.absent),
            part(self.warned, self.mostly_wrong),
            part(self.false_alarms, self.right),
        )


def _line(*cells: str) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True))


def _error(mark: tuple[float, float], word: Word) -> float:
    return max(abs(word.start - mark[0]), abs(word.end - mark[1]))


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Words `first` to `until` of a clip; cut half-way between words, at most `edge` seconds from them."""

    clip: gold.Recording
    first: int
    until: int
    edge: float = 0.3

    @property
    def words(self) -> gold.Rows:
        return self.clip.words[self.first : self.until]

    def cut(self, first: int, until: int, edge: float = 0.3) -> _Piece:
        return _Piece(self.clip, first, min(until, len(self.clip.words)), edge)

    def continues(self, after: _Piece | _Pause | None) -> bool:
        """Whether `after` is the next piece of the same clip."""
        return isinstance(after, _Piece) and after.clip is self.clip and after.first == self.until

    def limits(self, length: int) -> tuple[int, int]:
        """Samples."""
        words = self.clip.words
        begin, end = 0.0, length / gold.RATE
        if self.first > 0:
            begin = max((words[self.first - 1]["end"] + words[self.first]["start"]) / 2, words[self.first]["start"] - self.edge)
        if self.until < len(words):
            end = min((words[self.until - 1]["end"] + words[self.until]["start"]) / 2, words[self.until - 1]["end"] + self.edge)
        return int(begin * gold.RATE), int(end * gold.RATE)


@dataclass(frozen=True, slots=True)
class _Pause:
    seconds: float


_Parts: TypeAlias = tuple[Sequence[_Piece | _Pause], Sequence[_Piece]]


class _Maker:
    """Draws joins from the clips of one half of the speakers."""

    def __init__(self, half: str, clips: Sequence[gold.Recording], seed: int) -> None:
        self._half = half
        self._clips = clips
        self._draw = random.Random(seed)
        self._noise = np.random.default_rng(seed)
        self._samples = {clip.name: gold.samples(clip.audio) for clip in clips}
        self._count = 0

    def join(self, kind: str) -> Join:
        spoken, text = getattr(self, f"_{kind}")()
        return self._render(kind, spoken, text)

    # For each kind, what is said and the transcript; a piece of the transcript that is said is the same object in both.

    def _plain(self) -> _Parts:
        said = self._pick(self._draw.randint(2, 3))
        return said, said

    def _intro(self) -> _Parts:
        pieces = self._pick(self._draw.randint(2, 8))
        kept = self._draw.randint(1, 2)
        return pieces, pieces[-kept:]

    def _outro(self) -> _Parts:
        pieces = self._pick(self._draw.randint(2, 8))
        return pieces, pieces[: self._draw.randint(1, 2)]

    def _missing_passage(self) -> _Parts:
        pieces = self._pick(self._draw.randint(3, 5))
        first = self._draw.randint(1, len(pieces) - 2)
        until = self._draw.randint(first + 1, len(pieces) - 1)
        return pieces, pieces[:first] + pieces[until:]

    def _extra_speech(self) -> _Parts:
        """Another voice within a sentence."""
        one, other = self._pick(2)
        at = self._draw.randint(2, len(one.words) - 2)
        left, right = one.cut(0, at), one.cut(at, len(one.words))
        return [left, other, right], [left, right]

    def _wrong_half(self) -> _Parts:
        pieces = self._pick(self._draw.choice((4, 6, 8)))
        half = len(pieces) // 2
        said, wrong = pieces[:half] + pieces[half:], self._pick(half + self._draw.randint(0, 1), beside=pieces)
        return said, (pieces[:half] + wrong) if self._draw.random() < 0.5 else (wrong + pieces[half:])

    def _wrong_sentence(self) -> _Parts:
        pieces = self._pick(self._draw.randint(3, 5))
        at = self._draw.randrange(len(pieces))
        return pieces, [*pieces[:at], *self._pick(1, beside=pieces), *pieces[at + 1 :]]

    def _wrong_word(self) -> _Parts:
        """One word of the transcript is not the one that was said."""
        (left, said, right), other = self._sentence_and_word(1)
        return [left, said, right], [left, other, right]

    def _inserted_word(self) -> _Parts:
        (left, _, right), other = self._sentence_and_word(0)
        return [left, right], [left, other, right]

    def _sentence_and_word(self, length: int) -> tuple[tuple[_Piece, _Piece, _Piece], _Piece]:
        """A sentence in three parts, of which the middle has `length` words, and a word of another one."""
        one, other = self._pick(2)
        at, word = self._draw.randint(1, len(one.words) - 2), self._draw.randrange(len(other.words))
        parts = one.cut(0, at), one.cut(at, at + length), one.cut(at + length, len(one.words))
        return parts, other.cut(word, word + 1)

    def _text_begins_before(self) -> _Parts:
        said = self._pick(self._draw.randint(1, 2))
        return said, self._pick(self._draw.randint(1, 10), beside=said) + said

    def _text_goes_on(self) -> _Parts:
        said = self._pick(self._draw.randint(1, 2))
        return said, said + self._pick(self._draw.randint(1, 10), beside=said)

    def _wrong_text(self) -> _Parts:
        said = self._pick(self._draw.randint(1, 4))
        return said, self._pick(len(said), beside=said)

    def _long_second_half(self) -> _Parts:
        """Sentences may recur: two of the ten are read by every speaker."""
        said = self._pick(36, recurring=True)
        return said, said[18:]

    def _long_passage_missing(self) -> _Parts:
        said = self._pick(30, recurring=True)
        first = self._draw.randint(2, 10)
        return said, said[:first] + said[first + self._draw.randint(4, 12) :]

    def _long_text_before(self) -> _Parts:
        said = self._pick(30, recurring=True)
        return said[15:], said

    def _sparse(self) -> _Parts:
        """A few words in a long stretch of room tone."""
        (clip,) = self._pick(1)
        first = self._draw.randrange(len(clip.words) - 1)
        piece = clip.cut(first, first + self._draw.randint(1, 3), edge=0.0)
        return [_Pause(self._draw.uniform(3, 12)), piece, _Pause(self._draw.uniform(3, 12))], [piece]

    def _pick(self, count: int, beside: Iterable[_Piece] = (), recurring: bool = False) -> list[_Piece]:
        """Clips in random order; unless `recurring`, no text twice, nor one of `beside`."""
        taken = {piece.clip.text for piece in beside}
        chosen: list[_Piece] = []
        for clip in self._draw.sample(self._clips, len(self._clips)):
            if len(chosen) < count and (recurring or clip.text not in taken):
                taken.add(clip.text)
                chosen.append(_Piece(clip, 0, len(clip.words)))
        return chosen

    def _render(self, kind: str, spoken: Sequence[_Piece | _Pause], text: Sequence[_Piece]) -> Join:
        parts = [self._tone(0.2)]
        marks: dict[int, list[tuple[float, float]]] = {}
        at = len(parts[0])
        for piece, after in zip(spoken, [*spoken[1:], None], strict=True):
            if isinstance(piece, _Pause):
                part = self._tone(piece.seconds)
            else:
                begin, end = piece.limits(len(self._samples[piece.clip.name]))
                part = self._samples[piece.clip.name][begin:end]
                offset = (at - begin) / gold.RATE
                marks[id(piece)] = [(word["start"] + offset, word["end"] + offset) for word in piece.words]
                if not piece.continues(after):
                    part = np.concatenate([part, self._tone(self._draw.uniform(0.0, 0.5))])
            parts.append(part)
            at += len(part)
        lines = [
            Line(word["text"], mark)
            for piece in text
            for word, mark in zip(piece.words, marks.get(id(piece), [None] * len(piece.words)), strict=True)
        ]
        self._count += 1
        return Join(f"{self._half}_{kind}_{self._count}", kind, self._half, np.concatenate(parts), lines)

    def _tone(self, seconds: float) -> gold.Samples:
        noise = self._noise.normal(0, 32768 * 10 ** (_NOISE_DB / 20), int(seconds * gold.RATE))
        return np.rint(noise).astype(np.int16)


SHORT_KINDS = (
    "plain", "intro", "outro", "missing_passage", "extra_speech", "wrong_half", "wrong_sentence", "text_begins_before",
    "text_goes_on", "wrong_text", "sparse", "wrong_word", "inserted_word",
)  # fmt: skip
LONG_KINDS = ("long_second_half", "long_passage_missing", "long_text_before")
SHORT_JOINS, LONG_JOINS = 9, 1
"""Of each kind, for each half of the speakers: 240 in all."""


def joins(halves: Sequence[str] = ("dev", "held out"), short: int = SHORT_JOINS, long: int = LONG_JOINS) -> list[Join]:
    """The same at every call."""
    clips = gold.recordings("timit")
    speakers = sorted({clip.name.split("_")[0] for clip in clips})
    made = []
    for part, half in enumerate(("dev", "held out")):
        if half in halves:
            own = [clip for clip in clips if clip.name.split("_")[0] in speakers[part::2]]
            maker = _Maker(half, own, SEED + part)
            made += [maker.join(kind) for kind in SHORT_KINDS for _ in range(short)]
            made += [maker.join(kind) for kind in LONG_KINDS for _ in range(long)]
    return made


def report(answers: Iterable[tuple[Join, Alignment]]) -> str:
    """A line for every kind and half, and one for each half over the kinds in which something is wrong."""
    kinds: dict[tuple[str, str], _Tally] = {}
    for join, alignment in answers:
        keys = [(join.kind.replace("_", " "), join.half)] + [("all", join.half)] * (join.kind not in {"plain", "sparse"})
        for key in keys:
            kinds.setdefault(key, _Tally()).add(join, alignment)
    everything = {key[1]: kinds.pop(key) for key in list(kinds) if key[0] == "all"}
    titles = _line("joins", "off > 0.5 s", "sure", "lost", "absent, flagged", "warned", "false alarm")
    lines = [f"{'':<31}{titles}"] + [f"{kind:<21}{half:<10}{tally.row()}" for (kind, half), tally in kinds.items()]
    lines += [f"{'all but plain, sparse':<21}{half:<10}{tally.row()}" for half, tally in everything.items()]
    return "\n".join(lines)
