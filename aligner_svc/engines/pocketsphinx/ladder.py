"""One window of audio and its words: the cheap way first, a more forgiving one when it fails.

1. PocketSphinx over all words. Trusted if the words fit and no loud stretch is left
   without words: 0.0125 of real time, and what nearly every clean clip needs.
2. Otherwise the phoneme recogniser says which words are there at all and where, roughly:
   around a few words that do not fit, or everywhere. PocketSphinx places the ones that are
   again, on denoised audio if the clip is noisy; where the two disagree or PocketSphinx fails,
   the recogniser's times stand.
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
from aligner_svc.engines.pocketsphinx.second_opinion import Heard, Samples, Spelling, listen, listen_near
from aligner_svc.engines.pocketsphinx.skipping import Sighting

TRUSTED_MEAN = -2.1
"""Mean score a frame. On clean speech 99 % of right transcripts lie above, every wrong one below -2.3."""
TRUSTED_WORD = -4.2
"""Fit (see _fit) below which a word is worth a second opinion: 15 % of right clips have one, and 90 % of absent words are."""
TRUSTED_UNCOVERED = 0.12
"""Share of the loud frames that no word covers."""
CLEAN_RANGE_DB = 22.0
"""Between the 5th and the 95th percentile of frame energy. Speech at 10 dB over white noise has 10-15 dB, clean speech 40-60."""
_FEW = 0.25
"""Share of the words that may be in doubt before all of them are."""
_AGREEMENT = 0.15
"""Seconds by which the two recognisers may differ about one boundary."""
_START_BIAS, _END_BIAS = 0.0116, 0.0075
"""Seconds by which people mark word starts and ends later than PocketSphinx does (means over TIMIT)."""
_TAIL = 0.3
"""Seconds of audio kept after the last word that was heard."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a word is, in seconds.

    `score` as in Segment, None if only the phoneme recogniser heard it; `gap` as in Sighting, None if that was never asked;
    `spread` as in boundaries.Refined, None if the word was not refined.
    """

    start: float
    end: float
    score: float | None
    gap: float | None
    phones: tuple[str, ...]
    spread: float | None = None


@dataclass(frozen=True, slots=True)
class LadderWindow:
    """`placements[i]` is None where word i is not in the audio; words past `reached` may come later."""

    placements: Sequence[Placement | None]
    reached: int
    noisy: bool


class Ladder:
    """The two recognisers and the rules between them. Not thread-safe."""

    def __init__(self, recogniser: Recogniser, phonemes: Spelling) -> None:
        self._recogniser = recogniser
        self._phonemes = phonemes

    def align(self, samples: Samples, words: Sequence[str], exits: Sequence[int] = ()) -> LadderWindow:
        """Place `words` in `samples`. `exits`: counts of words after which the audio may end; none: it holds all."""
        levels = _levels(samples)
        noisy = bool(np.subtract(*np.percentile(levels, [95, 5])) < CLEAN_RANGE_DB) if len(levels) else True
        first, fits = (None, False) if noisy else self._place(samples, words, exits, _loud(levels))
        heard = self._hear(samples, words, exits, first if fits else None)
        present = [index for index in range(heard.reached) if _present(index, heard, first)]
        if first is not None and len(first) == heard.reached == len(present):
            segments: dict[int, Segment] = dict(enumerate(first))
        else:
            segments = self._place_again(samples, words, present, heard, noisy)
            if not segments and first is not None and not heard.whole:  # words never in doubt are where they were
                segments = {index: first[index] for index in present}
        placements = [_fuse(segments.get(index), heard.sightings.get(index), noisy, heard.whole) for index in range(len(words))]
        return LadderWindow(_in_order(placements), heard.reached, noisy)

    def _place(
        self, samples: Samples, words: Sequence[str], exits: Sequence[int], loud: npt.NDArray[np.bool_]
    ) -> tuple[list[Segment] | None, bool]:
        """PocketSphinx over all words; if they do not fit, over as many as do: a recording may be cut short.

        Also tells whether what it found fits as a whole.
        """
        segments = self._recogniser.align(samples, words, exits)
        fits = _trusted(segments, loud)
        if fits or exits or len(words) < 2:
            return segments, fits
        prefix = self._recogniser.align(samples, words, range(1, len(words)))
        return (prefix, True) if _trusted(prefix, loud) else (segments, False)

    def _hear(self, samples: Samples, words: Sequence[str], exits: Sequence[int], fitting: Sequence[Segment] | None) -> Heard:
        """A second opinion on as much as needs one: nothing, a few words of those that fit as a whole, or everything."""
        if fitting is None:
            return listen(self._phonemes, samples, words, exits)
        doubtful = [index for index, segment in enumerate(fitting) if _fit(segment) < TRUSTED_WORD]
        if len(doubtful) > _FEW * len(fitting):
            return listen(self._phonemes, samples, words, exits)
        return listen_near(self._phonemes, samples, words, fitting, doubtful)

    def _place_again(
        self, samples: Samples, words: Sequence[str], present: Sequence[int], heard: Heard, noisy: bool
    ) -> dict[int, Segment]:
        if not present:
            return {}
        audio = samples
        if heard.reached < len(words):
            audio = samples[: int((heard.end + _TAIL) * SAMPLE_RATE)]
        chosen = [words[index] for index in present]
        for attempt in (denoise,) if noisy else (None, denoise):
            segments = self._recogniser.align(attempt(audio) if attempt else audio, chosen)
            if segments is not None:
                return dict(zip(present, segments, strict=True))
        return {}


def _present(index: int, heard: Heard, first: Sequence[Segment] | None) -> bool:
    if index not in heard.sightings:  # not in doubt
        return True
    fits = first is not None and index < len(first) and first[index].score > TRUSTED_MEAN
    return fits or heard.sightings[index] is not None


def loudness(samples: Samples) -> npt.NDArray[np.bool_]:
    """Which 5 ms frames are nearer to the loud end of the clip than to the quiet one."""
    return _loud(_levels(samples))


def _loud(levels: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return levels > (np.percentile(levels, 95) + np.percentile(levels, 5)) / 2 if len(levels) else np.zeros(0, dtype=bool)


def _levels(samples: Samples) -> npt.NDArray[np.float64]:
    """Frame energies in dB, 5 ms a frame (PocketSphinx's frames)."""
    frames = samples[: len(samples) // 80 * 80].reshape(-1, 80).astype(np.float64)
    levels: npt.NDArray[np.float64] = 10 * np.log10((frames**2).mean(axis=1) + 1)
    return levels


def _fit(segment: Segment) -> float:
    """A word's score, less what it is squeezed.

    One that is not in the audio gets few frames for its phones (median 4,
    the model's least is 3), one that is gets more than 5.5 in 99 of 100 cases.
    """
    frames_a_phone = (segment.end - segment.start) * 200 / max(1, len(segment.phones))
    return segment.score + math.log(min(frames_a_phone, 12.0) / 12.0)


def _trusted(segments: Sequence[Segment] | None, loud: npt.NDArray[np.bool_]) -> bool:
    """Do the words as a whole fit the audio, and leave no `loud` frame of it alone? No words fit nothing."""
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


def _in_order(placements: Sequence[Placement | None]) -> list[Placement | None]:
    """Times from two recognisers may cross where one word has the one's and the next the other's: they meet half-way."""
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


def _fuse(segment: Segment | None, sighting: Sighting | None, noisy: bool, lost: bool) -> Placement | None:
    """One word's time. `lost`: PocketSphinx did not fit as a whole, so it may be elsewhere altogether."""
    if segment is None or sighting is None:
        if sighting is not None:
            return Placement(sighting.start, sighting.end, None, sighting.gap, ())
        if segment is not None:
            return Placement(segment.start, segment.end, segment.score, None, segment.phones)
        return None
    start, end = segment.start, segment.end
    apart = max(abs(start - sighting.start), abs(end - sighting.end))
    if lost and apart > _AGREEMENT:
        return Placement(sighting.start, sighting.end, None, sighting.gap, ())
    if noisy:  # two estimates with independent errors: their mean is better than either
        start, end = (start + _START_BIAS + sighting.start) / 2, (end + _END_BIAS + sighting.end) / 2
    return Placement(start, end, segment.score, sighting.gap, segment.phones)
