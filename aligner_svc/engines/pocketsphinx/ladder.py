"""Aligns one window of audio and its words: the cheap way first, a more robust one if it fails.

1. PocketSphinx over all words. Trusted if the words fit and no loud audio is left without words: 0.0125 of real time, and enough
   for nearly every clean clip.
2. Otherwise the phoneme recogniser finds which words were said, and roughly where: around a few words that do not fit, or
   everywhere. PocketSphinx places those again, on denoised audio if the clip is noisy; where the two disagree or PocketSphinx
   fails, the phoneme recogniser's times are used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.engines.denoise import denoise
from aligner_svc.engines.loudness import levels as energies
from aligner_svc.engines.loudness import limits, loud
from aligner_svc.engines.pocketsphinx.recogniser import Recogniser, Segment
from aligner_svc.engines.pocketsphinx.second_opinion import PhonemeRecogniser, Samples, SecondOpinion, search_all, search_near
from aligner_svc.engines.pocketsphinx.skipping import Detection

TRUSTED_MEAN = -2.1
"""Mean score a frame. On clean speech 99 % of right transcripts are above, all wrong ones below -2.3."""
TRUSTED_WORD = -4.2
"""Fit (see _fit) below which a word is doubtful: 15 % of right clips have such a word, and 90 % of absent words are."""
TRUSTED_UNCOVERED = 0.12  # share of the loud frames that no word covers
TRUSTED_FEW = -2.8
"""Mean score a frame of _FEW_WORDS in a row."""
_FEW_WORDS = 4
LONGEST_WORD, LONGEST_PHONE = 0.35, 0.15  # seconds; a word of n phones is at most the first and n times the second long
_STRETCH_FRAMES, _STRETCH_UNCOVERED = 100, 0.6
"""Loud frames without words in any half second: more is a word or two that are not in the text."""
_PASSAGE_WORDS, _PASSAGE_DOUBTFUL = 6, 3  # words in a row, and how many of them may not be doubtful
CLEAN_RANGE_DB = 22.0
"""Between the 5th and the 95th percentile of frame energy. Speech at 10 dB over white noise has 10-15 dB, clean speech 40-60."""
_MAX_DOUBTFUL = 0.25  # share of doubtful words above which all are
_AGREEMENT = 0.15  # seconds by which the two recognisers may differ about one boundary
_START_BIAS, _END_BIAS = 0.0112, 0.0017
"""Seconds by which people mark word starts and ends later than PocketSphinx does (means over TIMIT)."""
_TAIL = 0.3  # seconds of audio kept after the last word that was detected
_MARGIN = 0.2  # seconds of audio around a passage in which it is placed again
_MAX_UNDETECTED = 3  # words in a row between two that were detected, which PocketSphinx may still find
_BESIDE_SECONDS = 1.0  # of audio on either side of a passage, where the word beside it may be although it was not detected
_MAX_WORDS_A_SECOND = 8.0  # more than anyone speaks: most of such a text was not said here


@dataclass(frozen=True, slots=True)
class Placement:
    """A word in time, in seconds.

    `score` as in Segment, None if only the phoneme recogniser detected it; `gap` as in Detection, None if it was not searched
    for; `spread` as in boundaries.Refined, None if the word was not refined.
    """

    start: float
    end: float
    score: float | None
    gap: float | None
    phones: tuple[str, ...]
    spread: float | None = None


@dataclass(frozen=True, slots=True)
class LadderWindow:
    """`placements[i]` is None if word i is not in the audio; words from `reached` on may come later."""

    placements: Sequence[Placement | None]
    reached: int
    noisy: bool


@dataclass(frozen=True, slots=True)
class FirstPass:
    """What PocketSphinx finds. `segments`: None without a path, or if it was not tried: in noise, or for `too_many` words.

    `fits`: they fit as a whole.
    """

    segments: Sequence[Segment] | None
    fits: bool
    noisy: bool = False
    too_many: bool = False


class Ladder:
    """The two recognisers, and the rules for combining them. Not thread-safe."""

    def __init__(self, recogniser: Recogniser, phonemes: PhonemeRecogniser) -> None:
        self._recogniser = recogniser
        self._phonemes = phonemes

    def first(self, samples: Samples, words: Sequence[str], exits: Sequence[int] = ()) -> FirstPass:
        """The cheap way alone. `exits`: counts of words after which the audio may end; none: it contains all."""
        levels = energies(samples)
        background, speech = limits(levels)
        noisy = speech - background < CLEAN_RANGE_DB
        too_many = len(words) > _MAX_WORDS_A_SECOND * len(samples) / SAMPLE_RATE + _MAX_WORDS_A_SECOND
        segments, fits = (None, False) if noisy or too_many else self._place(samples, words, exits, loud(levels))
        return FirstPass(segments, fits, noisy, too_many)

    def align(
        self, samples: Samples, words: Sequence[str], exits: Sequence[int] = (), given: FirstPass | None = None
    ) -> LadderWindow:
        """Place `words` in `samples`. `exits` as in `first`, whose answer may be `given`."""
        given = given or self.first(samples, words, exits)
        first, fits, noisy, too_many = given.segments, given.fits, given.noisy, given.too_many
        opinion = self._second_opinion(samples, words, exits, first if fits else None, too_many and not exits)
        present = [index for index in range(opinion.reached) if _present(index, opinion, first or ())]
        if first is not None and len(first) == opinion.reached == len(present):
            segments: dict[int, Segment] = dict(enumerate(first))
        else:
            segments = self._place_again(
                samples, words, _pieces(len(samples) / SAMPLE_RATE, len(words), present, opinion, first), noisy
            )
            if first is not None and (opinion.whole or not segments):  # keep the words that were never doubtful, or no longer are
                undetected = [index for index in present if not opinion.whole or opinion.detections[index] is None]
                segments |= {index: first[index] for index in undetected}
        found = opinion.detections
        placements = [_fuse(segments.get(index), found.get(index), noisy, opinion.whole) for index in range(len(words))]
        return LadderWindow(uncross(placements), opinion.reached, noisy)

    def _place(
        self, samples: Samples, words: Sequence[str], exits: Sequence[int], loud_frames: npt.NDArray[np.bool_]
    ) -> tuple[list[Segment] | None, bool]:
        """PocketSphinx over all words; if they do not fit, over as many as do: a recording may be cut short.

        Returns also whether the segments fit as a whole.
        """
        segments = self._recogniser.align(samples, words, exits)
        fits = _trusted(segments, loud_frames)
        if fits or exits or len(words) < 2:
            return segments, fits
        prefix = self._recogniser.align(samples, words, range(1, len(words)))
        return (prefix, True) if _trusted(prefix, loud_frames) else (segments, False)

    def _second_opinion(
        self, samples: Samples, words: Sequence[str], exits: Sequence[int], fitting: Sequence[Segment] | None, excerpt: bool
    ) -> SecondOpinion:
        """On the doubtful words among the segments that fit as a whole; on everything if many are doubtful or nothing fits."""
        if fitting is not None:
            doubtful = [index for index, segment in enumerate(fitting) if _fit(segment) < TRUSTED_WORD]
            if len(doubtful) <= _MAX_DOUBTFUL * len(fitting) and not _crowded(doubtful):
                return search_near(self._phonemes, samples, words, fitting, doubtful)
        return search_all(self._phonemes, samples, words, exits, excerpt=excerpt)

    def _place_again(self, samples: Samples, words: Sequence[str], pieces: Sequence[_Piece], noisy: bool) -> dict[int, Segment]:
        """PocketSphinx over each piece; the words of one through which it finds no path are missing."""
        for audio in _readings(samples, noisy):
            placed: dict[int, Segment] = {}
            for piece in pieces:
                cut = audio[int(piece.begin * SAMPLE_RATE) : int(piece.end * SAMPLE_RATE)]
                chosen = [index for index in piece.words if index not in placed]
                while True:
                    segments = self._recogniser.align(cut, [words[index] for index in chosen]) or []
                    tried = piece.undetected.intersection(chosen)
                    fitting = {index for index, found in zip(chosen, segments, strict=False) if not _poor(found)}
                    if tried <= fitting:
                        break
                    chosen = [index for index in chosen if index not in tried or index in fitting]
                for index, segment in zip(chosen, segments, strict=False):
                    placed[index] = replace(segment, start=segment.start + piece.begin, end=segment.end + piece.begin)
            if placed:
                return placed
        return {}


@dataclass(frozen=True, slots=True)
class _Piece:
    """Words, by index, that are in the audio between two seconds; the `undetected` ones only if they fit."""

    words: Sequence[int]
    begin: float
    end: float
    undetected: frozenset[int] = frozenset()


def _pieces(
    seconds: float, count: int, present: Sequence[int], opinion: SecondOpinion, first: Sequence[Segment] | None
) -> list[_Piece]:
    """Everything in one if all but a few words fit (`first`), else every passage alone, with the word on either side of it."""
    if not opinion.whole and first is not None:
        return [_Piece(present, 0.0, seconds if opinion.reached == count else first[-1].end + _TAIL)] if present else []
    pieces = []
    passages = opinion.passages()
    for number, passage in enumerate(passages):
        found = [word for index in passage if (word := opinion.detections[index]) is not None]
        between = [range(left + 1, right) for left, right in pairwise(passage) if right - left <= _MAX_UNDETECTED + 1]
        before = range(passages[number - 1][-1] + 1 if number else 0, passage[0])[-1:]
        after = range(passage[-1] + 1, passages[number + 1][0] if number + 1 < len(passages) else opinion.reached)[:1]
        undetected = frozenset(index for run in (before, *between, after) for index in run)
        begin = found[0].start - _MARGIN - _BESIDE_SECONDS * len(before)
        end = found[-1].end + _MARGIN + _BESIDE_SECONDS * len(after)
        pieces.append(_Piece(sorted(undetected.union(passage)), max(0.0, begin), end, undetected))
    return pieces


def _poor(segment: Segment) -> bool:
    return segment.score <= TRUSTED_MEAN or _fit(segment) < TRUSTED_WORD


def _readings(samples: Samples, noisy: bool) -> Iterator[Samples]:
    if not noisy:
        yield samples
    yield denoise(samples)


def _present(index: int, opinion: SecondOpinion, first: Sequence[Segment]) -> bool:
    """Whether a word was said: detected, or in the `first` pass a good fit beside one that is where that pass has it."""
    if opinion.detections.get(index, True) is not None:  # those that are not doubtful are not searched for
        return True
    if index >= len(first) or first[index].score <= TRUSTED_MEAN:
        return False
    if not opinion.whole:
        return True
    neighbours = [other for other in (index - 1, index + 1) if 0 <= other < len(first)]
    return any(_agree(first[other], opinion.detections.get(other)) for other in neighbours)


def _agree(segment: Segment, detection: Detection | None) -> bool:
    if detection is None:
        return False
    return max(abs(segment.start - detection.start), abs(segment.end - detection.end)) <= _AGREEMENT


def _fit(segment: Segment) -> float:
    """A word's score, reduced if it got few frames.

    A word that is not in the audio gets few for each phone (median 4; the model's minimum is 3), one that is gets more than 5.5
    in 99 of 100 cases.
    """
    frames_a_phone = (segment.end - segment.start) * 200 / max(1, len(segment.phones))
    return segment.score + math.log(min(frames_a_phone, 12.0) / 12.0)


def _crowded(doubtful: Sequence[int]) -> bool:
    """Whether several doubtful words are so close that a passage may be wrong: the words around it are then wrong too."""
    return any(later - first < _PASSAGE_WORDS for first, later in zip(doubtful, doubtful[_PASSAGE_DOUBTFUL - 1 :], strict=False))


def _trusted(segments: Sequence[Segment] | None, loud_frames: npt.NDArray[np.bool_]) -> bool:
    """Whether the words as a whole fit the audio and cover its loud frames. False without words.

    So must every few words in a row, no word may be longer than its sounds can be, and no loud stretch be left without words:
    the mean of a long clip hides a sentence that is wrong.
    """
    if not segments:
        return False
    lengths = np.array([segment.end - segment.start for segment in segments])
    scores = np.array([segment.score for segment in segments])
    phones = np.array([len(segment.phones) for segment in segments])
    if np.average(scores, weights=lengths) < TRUSTED_MEAN or (lengths > LONGEST_WORD + LONGEST_PHONE * phones).any():
        return False
    few = np.ones(min(_FEW_WORDS, len(segments)))
    if (np.convolve(scores * lengths, few, "valid") / np.convolve(lengths, few, "valid")).min() < TRUSTED_FEW:
        return False
    covered = np.zeros(len(loud_frames), dtype=bool)
    for segment in segments:
        covered[int(segment.start * 200) : int(segment.end * 200)] = True
    uncovered = loud_frames & ~covered
    if (np.convolve(uncovered, np.ones(_STRETCH_FRAMES)) > _STRETCH_UNCOVERED * _STRETCH_FRAMES).any():
        return False
    return bool(uncovered.sum() <= TRUSTED_UNCOVERED * loud_frames.sum())


def uncross(placements: Sequence[Placement | None]) -> list[Placement | None]:
    """Where the times of two words cross, as they come from different recognisers, let the words meet half-way."""
    ordered = list(placements)
    before: int | None = None
    for index, placement in enumerate(ordered):
        if placement is None:
            continue
        left = ordered[before] if before is not None else None
        if before is not None and left is not None and placement.start < left.end:
            meeting = max(left.start, (left.end + placement.start) / 2)
            ordered[before] = replace(left, end=meeting)
            ordered[index] = replace(placement, start=meeting, end=max(meeting, placement.end))
        before = index
    return ordered


def _fuse(segment: Segment | None, detection: Detection | None, noisy: bool, lost: bool) -> Placement | None:
    """One word's time. `lost`: PocketSphinx did not fit as a whole, so its time may be entirely wrong."""
    if detection is None:
        return Placement(segment.start, segment.end, segment.score, None, segment.phones) if segment is not None else None
    alone = Placement(detection.start, detection.end, None, detection.gap, ())
    if segment is None:
        return alone
    start, end = segment.start, segment.end
    if lost and not _agree(segment, detection):
        return alone
    if noisy:  # two estimates with independent errors: their mean is better than either
        start, end = (start + _START_BIAS + detection.start) / 2, (end + _END_BIAS + detection.end) / 2
    return Placement(start, end, segment.score, detection.gap, segment.phones)
