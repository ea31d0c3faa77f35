"""PocketSphinx as an aligner: one pass at 110 frames a second over a chain of words.

The model was trained at 100 frames a second, where a phone lasts 30 ms at least: too long for fast speech, one clip of 80 has no
path. At 110 all have one. After the boundary refiner, edges of hand-marked speech are 15.8 ms off (held out by speaker); with
frate=200, ds=2, which costs as much, 16.8 ms. Absent words stand out more too: of words inserted into right transcripts 95 % fit
worse than 98 % of the right ones, at 200 frames a second 86 %. The lattice pass (bestpath) changes nothing in a chain.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pocketsphinx import Decoder

from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.engines.pocketsphinx.boundaries import WordSpan
from aligner_svc.engines.pocketsphinx.lexicon import Speller
from aligner_svc.engines.pocketsphinx.phones import HeardSound, second_pass
from aligner_svc.text.readings import ways

FRAME_RATE = 110
_FRAME_SECONDS = round(SAMPLE_RATE / FRAME_RATE) / SAMPLE_RATE  # PocketSphinx's frames begin at whole samples: 110.34 a second
_BEAM, _WORD_BEAM = 1e-100, 1e-80
"""Wider than PocketSphinx's 1e-48 and 7e-29, at which a wrong word often leaves no path: with a foreign word inserted or put in
the place of another, 14 of 1,310 said words are not found instead of 25, for 8 % more time of this pass."""
_GRAMMAR = "aligner"
_MAX_ADDED_WORDS = 20_000  # words added to the decoder's dictionary before it is rebuilt, so that its size is bounded
_EXIT = 0.5  # probability of leaving an open grammar after a word; at 1e-4 ten of 24 cut-off recordings fail
_SCORE_SCALE = 1 << 10  # without its lattice pass PocketSphinx reports a segment's likelihood shifted by SENSCR_SHIFT = 10 bits
_VARIANT = re.compile(r"\(\d+\)$")


@dataclass(frozen=True, slots=True)
class Segment:
    """A word in time, in seconds.

    `score` is the mean log-likelihood a frame, relative to the best model state of that frame: 0 is perfect, right words are
    around -1, wrong ones below -3. `phones` is the pronunciation that was found.
    """

    start: float
    end: float
    score: float
    phones: tuple[str, ...]


class Recogniser:
    """Forced alignment of one clip of at most ~30 s. Not thread-safe; holds the GIL."""

    def __init__(self, speller: Speller) -> None:
        self._speller = speller
        self._decoder = self._build()
        self._added = 0

    @staticmethod
    def _build() -> Decoder:
        return Decoder(
            lm=None,
            loglevel="FATAL",
            samprate=SAMPLE_RATE,
            frate=FRAME_RATE,
            silprob=0.5,
            bestpath=False,
            beam=_BEAM,
            pbeam=_BEAM,
            wbeam=_WORD_BEAM,
        )

    def align(self, samples: npt.NDArray[np.int16], words: Sequence[str], exits: Sequence[int] = ()) -> list[Segment] | None:
        """Segments of `words`, or with `exits` of a prefix of them, possibly empty; None: no path through the audio was found.

        `exits` are counts of words after which the recording may end; without any, all words must be in it.
        """
        self._ensure(words)
        count = len(words)
        arcs: list[tuple[int, int, float, str] | tuple[int, int, float]] = [
            (index, index + 1, 1.0, word) for index, word in enumerate(words)
        ]
        arcs += [(index, count, _EXIT) for index in exits if index < count]
        decoder = self._decoder
        decoder.add_fsg(_GRAMMAR, decoder.create_fsg(_GRAMMAR, 0, count, arcs))
        decoder.activate_search(_GRAMMAR)
        decoder.reinit_feat()  # the cepstral mean of the last clip must not affect this one
        decoder.start_utt()
        try:
            decoder.process_raw(samples.tobytes(), full_utt=True)
        finally:
            decoder.end_utt()  # otherwise the decoder stays in the utterance
        if decoder.hyp() is None:
            return None
        segments = [self._segment(raw) for raw in decoder.seg() if raw.word and raw.word[0] not in "<[("]
        if not exits and len(segments) != count:
            return None
        return segments

    def phones(self, samples: npt.NDArray[np.int16], words: Sequence[str]) -> list[list[HeardSound]] | None:
        """See FindSounds."""
        if self.align(samples, words) is None:
            return None
        found = second_pass(self._decoder, samples, _FRAME_SECONDS)
        if len(found) != len(words):
            return None
        return [[HeardSound(one.symbol, WordSpan(one.start, one.end, (one.symbol,))) for one in phones] for _, phones in found]

    def _segment(self, raw: object) -> Segment:
        word, first, last, likelihood = raw.word, raw.start_frame, raw.end_frame, raw.ascore  # type: ignore[attr-defined]
        frames = last - first + 1
        phones = self._decoder.lookup_word(word) or self._decoder.lookup_word(_VARIANT.sub("", word)) or ""
        return Segment(
            start=first * _FRAME_SECONDS,
            end=(last + 1) * _FRAME_SECONDS,
            score=math.log(max(likelihood, 1e-300)) * _SCORE_SCALE / frames,
            phones=tuple(phones.split()),
        )

    def _ensure(self, words: Sequence[str]) -> None:
        new = [word for word in dict.fromkeys(words) if self._decoder.lookup_word(word) is None]
        if self._added + len(new) > _MAX_ADDED_WORDS:
            self._decoder, self._added = self._build(), 0
            new = [word for word in dict.fromkeys(words) if self._decoder.lookup_word(word) is None]
        for word in new:
            for number, way in enumerate(ways(word), 1):
                phones = " ".join(self._decoder.lookup_word(part) or " ".join(self._speller.phones(part)) for part in way)
                self._decoder.add_word(word if number == 1 else f"{word}({number})", phones, update=False)
        self._added += len(new)
