"""Aligns one window of audio and its words: the cheap way first, a more robust one if it fails.

1. PocketSphinx over all words. Trusted if the words fit and no loud audio is left without words: 0.0125 of real time, and enough
   for nearly every clean clip.
2. Otherwise the phoneme recogniser finds which words were said, and roughly where: around a few words that do not fit, or
   everywhere. PocketSphinx places those again, on denoised audio if the clip is noisy; where the two disagree or PocketSphinx
   fails, the phoneme recogniser's times are used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.engines.pocketsphinx.denoise import denoise
from aligner_svc.engines.pocketsphinx.recogniser import Recogniser, Segment
from aligner_svc.engines.pocketsphinx.second_opinion import PhonemeRecogniser, Samples, SecondOpinion, search_all, search_near
from aligner_svc.engines.pocketsphinx.skipping import Detection

TRUSTED_MEAN = -2.1
"""Mean score a frame. On clean speech 99 % of right transcripts are above, all wrong ones below -2.3."""
TRUSTED_WORD = -4.2
"""Fit (see _fit) below which a word is doubtful: 15 % of right clips have such a word, and 90 % of absent words are."""
TRUSTED_UNCOVERED = 0.12  # share of the loud frames that no word covers
CLEAN_RANGE_DB = 22.0
"""Between the 5th and the 95th percentile of frame energy. Speech at 10 dB over white noise has 10-15 dB, clean speech 40-60."""
_MAX_DOUBTFUL = 0.25  # share of doubtful words above which all are
_AGREEMENT = 0.15  # seconds by which the two recognisers may differ about one boundary
_START_BIAS, _END_BIAS = 0.0112, 0.0017
"""Seconds by which people mark word starts and ends later than PocketSphinx does (means over TIMIT)."""
_TAIL = 0.3  # seconds of audio kept after the last word that was detected


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


class Ladder:
    """The two recognisers, and the rules for combining them. Not thread-safe."""

    def __init__(self, recogniser: Recogniser, phonemes: PhonemeRecogniser) -> None:
        self._recogniser = recogniser
        self._phonemes = phonemes

    def align(self, samples: Samples, words: Sequence[str], exits: Sequence[int] = ()) -> LadderWindow:
        """Place `words` in `samples`. `exits`: counts of words after which the audio may end; none: it contains all."""
        levels = _levels(samples)
        noisy = bool(np.subtract(*np.percentile(levels, [95, 5])) < CLEAN_RANGE_DB) if len(levels) else True
        first, fits = (None, False) if noisy else self._place(samples, words, exits, _loud(levels))
        opinion = self._second_opinion(samples, words, exits, first if fits else None)
        present = [index for index in range(opinion.reached) if _present(index, opinion, first)]
        if first is not None and len(first) == opinion.reached == len(present):
            segments: dict[int, Segment] = dict(enumerate(first))
        else:
            segments = self._place_again(samples, words, present, opinion, noisy)
            if not segments and first is not None and not opinion.whole:  # keep the words that were never doubtful
                segments = {index: first[index] for index in present}
        found = opinion.detections
        placements = [_fuse(segments.get(index), found.get(index), noisy, opinion.whole) for index in range(len(words))]
        return LadderWindow(uncross(placements), opinion.reached, noisy)

    def _place(
        self, samples: Samples, words: Sequence[str], exits: Sequence[int], loud: npt.NDArray[np.bool_]
    ) -> tuple[list[Segment] | None, bool]:
        """PocketSphinx over all words; if they do not fit, over as many as do: a recording may be cut short.

        Returns also whether the segments fit as a whole.
        """
        segments = self._recogniser.align(samples, words, exits)
        fits = _trusted(segments, loud)
        if fits or exits or len(words) < 2:
            return segments, fits
        prefix = self._recogniser.align(samples, words, range(1, len(words)))
        return (prefix, True) if _trusted(prefix, loud) else (segments, False)

    def _second_opinion(
        self, samples: Samples, words: Sequence[str], exits: Sequence[int], fitting: Sequence[Segment] | None
    ) -> SecondOpinion:
        """On the doubtful words among the segments that fit as a whole; on everything if many are doubtful or nothing fits."""
        if fitting is not None:
            doubtful = [index for index, segment in enumerate(fitting) if _fit(segment) < TRUSTED_WORD]
            if len(doubtful) <= _MAX_DOUBTFUL * len(fitting):
                return search_near(self._phonemes, samples, words, fitting, doubtful)
        return search_all(self._phonemes, samples, words, exits)

    def _place_again(
        self, samples: Samples, words: Sequence[str], present: Sequence[int], opinion: SecondOpinion, noisy: bool
    ) -> dict[int, Segment]:
        if not present:
            return {}
        audio = samples
        if opinion.reached < len(words):
            audio = samples[: int((opinion.end + _TAIL) * SAMPLE_RATE)]
        chosen = [words[index] for index in present]
        for denoised in (True,) if noisy else (False, True):
            segments = self._recogniser.align(denoise(audio) if denoised else audio, chosen)
            if segments is not None:
                return dict(zip(present, segments, strict=True))
        return {}


def _present(index: int, opinion: SecondOpinion, first: Sequence[Segment] | None) -> bool:
    if index not in opinion.detections:  # not doubtful
        return True
    fits = first is not None and index < len(first) and first[index].score > TRUSTED_MEAN
    return fits or opinion.detections[index] is not None


def loudness(samples: Samples) -> npt.NDArray[np.bool_]:
    """Which 5 ms frames are closer to the clip's 95th percentile of energy than to its 5th."""
    return _loud(_levels(samples))


def _loud(levels: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return levels > (np.percentile(levels, 95) + np.percentile(levels, 5)) / 2 if len(levels) else np.zeros(0, dtype=bool)


def _levels(samples: Samples) -> npt.NDArray[np.float64]:
    """Frame energies in dB, 5 ms a frame (PocketSphinx's frames)."""
    frames = samples[: len(samples) // 80 * 80].reshape(-1, 80).astype(np.float64)
    return 10 * np.log10((frames**2).mean(axis=1) + 1)


def _fit(segment: Segment) -> float:
    """A word's score, reduced if it got few frames.

    A word that is not in the audio gets few for each phone (median 4; the model's minimum is 3), one that is gets more than 5.5
    in 99 of 100 cases.
    """
    frames_a_phone = (segment.end - segment.start) * 200 / max(1, len(segment.phones))
    return segment.score + math.log(min(frames_a_phone, 12.0) / 12.0)


def _trusted(segments: Sequence[Segment] | None, loud: npt.NDArray[np.bool_]) -> bool:
    """Whether the words as a whole fit the audio and cover its `loud` frames. False without words."""
    if not segments:
        return False
    lengths = np.array([segment.end - segment.start for segment in segments])
    scores = np.array([segment.score for segment in segments])
    if np.average(scores, weights=lengths) < TRUSTED_MEAN:
        return False
    covered = np.zeros(len(loud), dtype=bool)
    for segment in segments:
        covered[int(segment.start * 200) : int(segment.end * 200)] = True
    return bool((loud & ~covered).sum() <= TRUSTED_UNCOVERED * loud.sum())


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
    if lost and max(abs(start - detection.start), abs(end - detection.end)) > _AGREEMENT:
        return alone
    if noisy:  # two estimates with independent errors: their mean is better than either
        start, end = (start + _START_BIAS + detection.start) / 2, (end + _END_BIAS + detection.end) / 2
    return Placement(start, end, segment.score, detection.gap, segment.phones)
