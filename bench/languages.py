"""Other languages on PocketSphinx against hand-marked recordings: phrase edges, joins without pauses, single words, wrong texts.

What is printed is what docs/languages.md tells. TIMIT goes through IPA and back inside this process, to tell what the way through
IPA costs: a service would align it as English.
"""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pocketsphinx import Decoder

from aligner_client import AlignerClientError, AsyncAligner
from aligner_svc.domain import Alignment
from aligner_svc.engines.pocketsphinx.boundaries import BoundaryRefiner
from aligner_svc.engines.pocketsphinx.languages import ipa
from aligner_svc.engines.pocketsphinx.languages.ipa import Ways
from aligner_svc.engines.pocketsphinx.languages.recogniser import PhoneRecogniser
from aligner_svc.engines.pocketsphinx.languages.window import refine
from aligner_svc.engines.pocketsphinx.lexicon import Speller
from aligner_svc.text.arpabet import IPA
from bench import gold

PHRASES = ("sppas", "pyjulius")
WORDS = ("voxangeles",)
_ALIKE = 0.5
"""Share of letters in common from which a transcript is not a wrong one."""
_PAD = gold.RATE // 10
"""Samples kept around a phrase where phrases are joined without their pauses."""


@dataclass(frozen=True, slots=True)
class Phrases:
    """A recording with marked phrases, seconds."""

    name: str
    language: str
    samples: gold.Samples
    segments: Sequence[Mapping[str, Any]]

    @property
    def text(self) -> str:
        return " ".join(segment["text"] for segment in self.segments)


def header(title: str) -> None:
    print(f"\n== {title}")


def phrases() -> list[Phrases]:
    found = []
    for name in PHRASES:
        for recording in gold.recordings(name):
            marks = json.loads(recording.audio.with_suffix(".json").read_text(encoding="utf-8"))
            if marks["language"] != "en":
                found.append(Phrases(recording.name, marks["language"], gold.samples(recording.audio), marks["segments"]))
    return found


def joined(given: Phrases) -> Phrases:
    """The phrases of a recording without the pauses between them."""
    pieces, segments, at = [], [], 0
    for segment in given.segments:
        first, last = int(segment["start"] * gold.RATE), int(segment["end"] * gold.RATE)
        pieces.append(given.samples[first:last])
        segments.append({"text": segment["text"], "start": at / gold.RATE, "end": (at + last - first) / gold.RATE})
        at += last - first
    silence = np.zeros(_PAD, np.int16)
    moved = [{**s, "start": s["start"] + 0.1, "end": s["end"] + 0.1} for s in segments]
    return Phrases(given.name, given.language, np.concatenate([silence, *pieces, silence]), moved)


def _letters(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFC", text.lower()) if unicodedata.category(char)[0] in "LN")


def edges(answer: Alignment, segments: Sequence[Mapping[str, Any]], *, inner: bool = False) -> list[float]:
    """Signed errors of the phrases' starts and ends, seconds; words are matched by the letters before them. `inner`: of joins."""
    owner = [word for word in answer.words for _ in _letters(word.text)]
    errors, at = [], 0
    for number, segment in enumerate(segments):
        count = len(_letters(segment["text"]))
        if not (inner and number == 0):
            errors.append(owner[at].start - segment["start"])
        if not (inner and number == len(segments) - 1):
            errors.append(owner[at + count - 1].end - segment["end"])
        at += count
    if at != len(owner):
        raise ValueError(f"the answer has {len(owner)} letters, the marks have {at}")
    return errors


def row(name: str, errors: Sequence[float]) -> str:
    off = np.abs(np.array(errors)) * 1000
    shares = " ".join(f"<{limit} {np.mean(off < limit):.3f}" for limit in (50, 100, 200))
    bias = float(np.mean(errors)) * 1000
    return f"{name:<28} edges {len(off):4d}  mean {off.mean():6.1f}  median {np.median(off):5.1f}  bias {bias:6.1f}  {shares}"


async def _align(client: AsyncAligner, samples: gold.Samples, text: str, language: str) -> Alignment | None:
    try:
        return await client.align(gold.wav(samples), text, language=language, timeout=120)
    except AlignerClientError as error:
        print(f"   {language}: {error.reason}: {error.message}")
        return None


def _report(found: Mapping[str, list[float]], lost: Iterable[str]) -> None:
    for language, errors in sorted(found.items()):
        print(row(language, errors))
    print(row("all", [error for errors in found.values() for error in errors]), f"without an answer: {list(lost)}")


def _warned(answer: Alignment | None) -> bool:
    return answer is None or any(warning.code == "TRANSCRIPT_MISMATCH" for warning in answer.warnings)


async def measure(target: str) -> None:
    given = phrases()
    async with AsyncAligner(target) as client:
        for title, inner, items in (
            ("phrase edges", False, given),
            ("joins without pauses", True, [joined(item) for item in given]),
        ):
            header(title)
            found: dict[str, list[float]] = defaultdict(list)
            lost = []
            for item in items:
                answer = await _align(client, item.samples, item.text, item.language)
                if answer is None or all(word.end == word.start for word in answer.words):
                    lost.append(item.name)
                else:
                    found[item.language] += edges(answer, item.segments, inner=inner)
            _report(found, lost)
        await _single_words(client)
        await _wrong(client, given)
    _through_ipa()


async def _single_words(client: AsyncAligner) -> None:
    header("single words")
    found: dict[str, list[float]] = defaultdict(list)
    lost = []
    for name in WORDS:
        for recording in gold.recordings(name):
            marks = json.loads(recording.audio.with_suffix(".json").read_text(encoding="utf-8"))
            answer = await _align(client, gold.samples(recording.audio), recording.text, marks["language"])
            if answer is None or answer.words[0].end == answer.words[0].start:
                lost.append(recording.name)
                continue
            (mark,) = recording.words
            found[marks["language"]] += [answer.words[0].start - mark["start"], answer.words[-1].end - mark["end"]]
    _report(found, lost)


def _alike(text: str, other: str) -> bool:
    """Whether one says what the other does, or much of it: two of the recordings are of one story."""
    a, b = _letters(text), _letters(other)
    return a in b or b in a or difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() > _ALIKE


async def _wrong(client: AsyncAligner, given: Sequence[Phrases]) -> None:
    """Every recording, and every phrase of a second or more, with its own text and with others of about its length."""
    header("right and wrong transcripts")
    pieces: list[tuple[str, gold.Samples, str]] = [(item.language, item.samples, item.text) for item in given]
    for item in given:
        for segment in item.segments:
            cut = item.samples[int(max(0.0, segment["start"] - 0.2) * gold.RATE) : int((segment["end"] + 0.2) * gold.RATE)]
            if segment["end"] - segment["start"] >= 1.0:
                pieces.append((item.language, cut, segment["text"]))
    scores: dict[bool, list[float]] = {True: [], False: []}
    warned: dict[bool, list[bool]] = {True: [], False: []}
    for number, (language, samples, text) in enumerate(pieces):
        others = sorted(
            (other for index, other in enumerate(pieces) if index != number and not _alike(text, other[2])),
            key=lambda other: abs(np.log(len(other[1]) / len(samples))),
        )
        cases = [(True, language, text), *((False, other[0], other[2]) for other in others[:3])]
        for right, spoken, said in cases:
            answer = await _align(client, samples, said, spoken)
            warned[right].append(_warned(answer))
            if answer is not None:
                scores[right].append(answer.match_score)
    for right, name in ((True, "right"), (False, "wrong")):
        spread = " ".join(f"{value:.2f}" for value in np.percentile(scores[right], [0, 5, 50, 95, 100]))
        print(f"{name}: warned of {np.mean(warned[right]):.1%} of {len(warned[right])}; match score 0/5/50/95/100 %: {spread}")


def _through_ipa() -> None:
    """TIMIT with each pronunciation turned into IPA and back."""
    header("timit through IPA")
    recogniser, refiner, ways = PhoneRecogniser(), BoundaryRefiner(), ways_of()
    errors: list[float] = []
    lost = []
    for recording in gold.recordings("timit"):
        samples = gold.samples(recording.audio)
        words = [ways(word["text"]) for word in recording.words]
        segments = recogniser.align(samples, words)
        if segments is None:
            lost.append(recording.name)
            continue
        for mark, word in zip(recording.words, refine(refiner, samples, segments), strict=True):
            errors += [word.start - mark["start"], word.end - mark["end"]]
    print(row("all", errors), f"without an answer: {lost}")


def ways_of() -> Callable[[str], Ways]:
    """Pronunciations of English words as those of other languages are made, from IPA."""
    dictionary, english = Decoder(lm=None, loglevel="FATAL"), Speller()

    def ways(text: str) -> Ways:
        word = re.sub("[^a-z']", "", text.lower())
        known = [dictionary.lookup_word(name) for name in (word, f"{word}(2)", f"{word}(3)")]
        spelled = [phones.split() for phones in known if phones] or [english.phones(word)]
        found = (way for phones in spelled for way in ipa.variants("".join(map(IPA.__getitem__, phones))))
        return tuple({ipa.phones_of(way): way for way in found}.values())[:6]

    return ways
