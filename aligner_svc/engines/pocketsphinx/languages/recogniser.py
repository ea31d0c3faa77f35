"""PocketSphinx's English model as an aligner of words that are given as phones: a decoder of its own, with wide beams.

Sounds that the model was not trained on score badly for a while; with the default beams the right path is then dropped, and with
it the sentence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from pocketsphinx import Decoder

from aligner_svc.domain import SAMPLE_RATE, Phone
from aligner_svc.engines.pocketsphinx.boundaries import WordSpan
from aligner_svc.engines.pocketsphinx.languages.ipa import Way, Ways, phones_of
from aligner_svc.engines.pocketsphinx.phones import HeardSound, second_pass
from aligner_svc.engines.pocketsphinx.recogniser import Segment

_FRAME_RATE = 200
_GRAMMAR = "languages"
_MAX_WORDS = 20_000  # pronunciations in the decoder's dictionary before it is rebuilt, so that its size is bounded
_EXIT = 0.5  # probability that the audio ends after a word
_SCORE_SCALE = 1 << 10  # without its lattice pass PocketSphinx reports a likelihood shifted by SENSCR_SHIFT = 10 bits
_VARIANT = re.compile(r"\((\d+)\)$")


class PhoneRecogniser:
    """Forced alignment of one clip of at most ~30 s. Not thread-safe; holds the GIL."""

    def __init__(self) -> None:
        self._decoder = self._build()
        self._names: dict[Ways, str] = {}

    @staticmethod
    def _build() -> Decoder:
        return Decoder(
            lm=None, loglevel="FATAL", samprate=SAMPLE_RATE, frate=_FRAME_RATE, ds=2, silprob=0.5, bestpath=False,
            beam=1e-80, pbeam=1e-80, wbeam=1e-60,
        )  # fmt: skip

    def align(self, samples: npt.NDArray[np.int16], words: Sequence[Ways], exits: Sequence[int] = ()) -> list[Segment] | None:
        """As pocketsphinx.recogniser.Recogniser.align, with the pronunciations in place of words."""
        names = self._ensure(words)
        count = len(words)
        arcs: list[tuple[int, int, float, str] | tuple[int, int, float]] = [
            (index, index + 1, 1.0, name) for index, name in enumerate(names)
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
        segments: list[Segment] = []
        for raw in decoder.seg():
            if not raw.word or raw.word[0] in "<[(":
                continue
            if len(segments) == count:
                return None
            segments.append(_segment(raw, words[len(segments)]))
        return segments if exits or len(segments) == count else None

    def phones(self, samples: npt.NDArray[np.int16], words: Sequence[Ways]) -> list[list[HeardSound]] | None:
        """As pocketsphinx.recogniser.Recogniser.phones, in IPA."""
        if self.align(samples, words) is None:
            return None
        found = second_pass(self._decoder, samples, 1 / _FRAME_RATE)
        if len(found) != len(words):
            return None
        return [list(_heard(_taken(name, ways), phones)) for (name, phones), ways in zip(found, words, strict=True)]

    def _ensure(self, words: Sequence[Ways]) -> list[str]:
        """Names of the words in the decoder's dictionary: private ones, as "die" and "pain" are words of English too."""
        new = [ways for ways in dict.fromkeys(words) if ways not in self._names]
        if len(self._names) + len(new) > _MAX_WORDS and self._names:
            self._decoder, self._names = self._build(), {}
            new = list(dict.fromkeys(words))
        for ways in new:
            self._names[ways] = name = f"w{len(self._names)}"
            for number, way in enumerate(ways, 1):
                phones = " ".join(phones_of(way))
                self._decoder.add_word(name if number == 1 else f"{name}({number})", phones, update=False)
        return [self._names[ways] for ways in words]


def _segment(raw: object, ways: Ways) -> Segment:
    name, first, last, likelihood = raw.word, raw.start_frame, raw.end_frame, raw.ascore  # type: ignore[attr-defined]
    frames = last - first + 1
    return Segment(
        start=first / _FRAME_RATE,
        end=(last + 1) / _FRAME_RATE,
        score=math.log(max(likelihood, 1e-300)) * _SCORE_SCALE / frames,
        phones=phones_of(_taken(name, ways)),
    )


def _taken(name: str, ways: Ways) -> Way:
    """Which of its pronunciations a word was said with."""
    variant = _VARIANT.search(name)
    return ways[int(variant[1]) - 1 if variant else 0]


def _heard(way: Way, phones: Sequence[Phone]) -> Iterator[HeardSound]:
    """The sounds of a word whose `phones` were found."""
    at = 0
    for sound in way:
        first, last = phones[at], phones[at + len(sound.phones) - 1]
        at += len(sound.phones)
        yield HeardSound(sound.symbol, WordSpan(first.start, last.end, sound.phones))
