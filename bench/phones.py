"""Edges of sounds against the phones that TIMIT has marked by hand: in English, and as other languages are aligned, through IPA.

    python -m bench.phones FOLDER

FOLDER has `<recording>.phn` for the recordings of the gold set timit: the files of the TIMIT sample of NLTK, `dr1-fvmh0/sa1.phn`
as `dr1-fvmh0_sa1.phn`. What is printed is what docs/engine.md and docs/languages.md tell.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from aligner_svc.domain import Phone, WordStatus
from aligner_svc.engines.pocketsphinx.boundaries import BoundaryRefiner, Refined, WordSpan
from aligner_svc.engines.pocketsphinx.languages.recogniser import PhoneRecogniser
from aligner_svc.engines.pocketsphinx.languages.window import refine
from aligner_svc.engines.pocketsphinx.lexicon import Speller
from aligner_svc.engines.pocketsphinx.phones import with_phones
from aligner_svc.engines.pocketsphinx.recogniser import Recogniser
from aligner_svc.engines.pocketsphinx.wire import TokenSpan
from aligner_svc.text import arpabet
from bench import gold
from bench.languages import ways_of

Sounds = Sequence[Phone]

_CLOSURES: Final = {"bcl": "b", "dcl": "d", "gcl": "g", "pcl": "p", "tcl": "t", "kcl": "k"}
_BURSTS: Final = frozenset(["b", "d", "g", "p", "t", "k", "jh", "ch"])
_ALLOPHONES: Final = {
    "ax": "ah", "ix": "ih", "axr": "er", "hv": "hh", "dx": "t", "nx": "n", "ux": "uw", "el": "l", "em": "m", "en": "n",
    "eng": "ng", "ax-h": "ah",
}  # fmt: skip
_JOINED_TO_BEFORE: Final = frozenset({"q", "epi"})
_SILENCE: Final = frozenset({"h#", "pau"})
_VOWELS: Final = frozenset(["AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"])
_UNPAIRED, _OTHER_VOWEL, _OTHER_CLASS, _A_SECOND = 1.0, 0.6, 2.0, 2.0
"""Costs of a pairing: a sound without another, two of one class, a vowel with a consonant, and of a second between them."""


def marked(path: Path) -> list[Phone]:
    """The phones of a .phn file: closures joined to their bursts, allophones as the sounds of the dictionary."""
    found: list[Phone] = []
    closed = False
    for first, last, name in (line.split() for line in path.read_text(encoding="ascii").splitlines()):
        start, end = int(first) / gold.RATE, int(last) / gold.RATE
        if found and (name in _JOINED_TO_BEFORE or (closed and name in _BURSTS)):
            symbol = found[-1].symbol if name in _JOINED_TO_BEFORE else name.upper()
            found[-1] = Phone(symbol, found[-1].start, end)
        elif name not in _SILENCE and name not in _JOINED_TO_BEFORE:
            found.append(Phone(_CLOSURES.get(name, _ALLOPHONES.get(name, name)).upper(), start, end))
        closed = name in _CLOSURES
    return found


def pairs(marks: Sounds, sounds: Sounds) -> list[tuple[Phone, Phone]]:
    """The cheapest pairing of the two in order; both in ARPABET."""
    cost = np.zeros((len(marks) + 1, len(sounds) + 1))
    cost[:, 0], cost[0] = np.arange(len(marks) + 1), np.arange(len(sounds) + 1)
    both = np.array([[_difference(mark, sound) for sound in sounds] for mark in marks])
    for i in range(1, len(marks) + 1):
        for j in range(1, len(sounds) + 1):
            cost[i, j] = min(cost[i - 1, j - 1] + both[i - 1, j - 1], cost[i - 1, j] + _UNPAIRED, cost[i, j - 1] + _UNPAIRED)
    found = []
    i, j = len(marks), len(sounds)
    while i and j:
        if cost[i, j] == cost[i - 1, j - 1] + both[i - 1, j - 1]:
            i, j = i - 1, j - 1
            found.append((marks[i], sounds[j]))
        elif cost[i, j] == cost[i - 1, j] + _UNPAIRED:
            i -= 1
        else:
            j -= 1
    return found[::-1]


def _difference(mark: Phone, sound: Phone) -> float:
    apart = abs(mark.start - sound.start) * _A_SECOND
    if mark.symbol == sound.symbol:
        return apart
    return apart + (_OTHER_VOWEL if (mark.symbol in _VOWELS) == (sound.symbol in _VOWELS) else _OTHER_CLASS)


def _tokens(refined: Sequence[Refined]) -> list[TokenSpan]:
    return [TokenSpan(word.start, word.end, 0.9, 0.9, WordStatus.ALIGNED) for word in refined]


def english() -> Callable[[gold.Recording, gold.Samples], list[TokenSpan]]:
    """The recogniser of English, in ARPABET."""
    recogniser, refiner = Recogniser(Speller()), BoundaryRefiner()

    def align(recording: gold.Recording, samples: gold.Samples) -> list[TokenSpan]:
        words = [str(word["text"]) for word in recording.words]
        segments = recogniser.align(samples, words) or []
        spans = refiner.refine(samples, [WordSpan(one.start, one.end, one.phones) for one in segments])
        return with_phones(_tokens(spans), samples, [[word] for word in words], recogniser.phones, refiner)

    return align


def through_ipa() -> Callable[[gold.Recording, gold.Samples], list[TokenSpan]]:
    """The recogniser of other languages, with English words that are given in IPA; the symbols are told as those of ARPABET."""
    recogniser, refiner, ways = PhoneRecogniser(), BoundaryRefiner(), ways_of()
    symbols = {ipa: symbol for symbol, ipa in arpabet.IPA.items()}

    def align(recording: gold.Recording, samples: gold.Samples) -> list[TokenSpan]:
        words = [ways(str(word["text"])) for word in recording.words]
        spans = _tokens(refine(refiner, samples, recogniser.align(samples, words) or []))
        found = with_phones(spans, samples, [[word] for word in words], recogniser.phones, refiner)
        return [
            TokenSpan(
                word.start,
                word.end,
                0.9,
                0.9,
                word.status,
                tuple(one._replace(symbol=symbols.get(one.symbol, "")) for one in word.phones),
            )
            for word in found
        ]

    return align


def measure(folder: Path) -> None:
    """Print a line for each recogniser."""
    recordings = gold.recordings("timit")
    for name, align in (("English", english()), ("through IPA", through_ipa())):
        marks = words = covered = same = 0
        errors: list[float] = []
        began = time.process_time()
        for recording in recordings:
            spans = align(recording, gold.samples(recording.audio))
            given = marked(folder / f"{recording.name}.phn")
            marks += len(given)
            words += len(recording.words)
            covered += sum(_fills(word) for word in spans)
            for mark, sound in pairs(given, [phone for word in spans for phone in word.phones]):
                same += mark.symbol == sound.symbol
                errors += [mark.start - sound.start, mark.end - sound.end]
        off = np.abs(np.array(errors)) * 1000
        print(
            f"{name:<12} phones {marks}, paired {len(off) // 2}, same symbol {same}; edges mean {off.mean():.1f} ms, "
            f"median {np.median(off):.1f}, <=20 {np.mean(off <= 20):.3f}, <=50 {np.mean(off <= 50):.3f}; words that their phones "
            f"fill in order {covered} of {words}; {time.process_time() - began:.1f} s of CPU"
        )


def _fills(word: TokenSpan) -> bool:
    phones = word.phones
    edges = [(phones[0].start, word.start), (word.end, phones[-1].end)] if phones else [(0.0, 1.0)]
    meet = [(one.end, other.start) for one, other in pairwise(phones)]
    return all(abs(a - b) < 1e-9 for a, b in edges + meet) and all(one.end >= one.start for one in phones)


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
