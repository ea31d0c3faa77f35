"""`make bench-accuracy`: hand-marked recordings through a running service, scored.

Prints score.py's table for every set; then what happens in white noise, in rooms and in other noise, in an hour
of joined recordings, with transcripts that belong to other recordings, with awkward files, and where recording and transcript
differ by passages (bench/joins.py); and how reliable the confidences are. `--only` takes parts, e.g.
`make bench-accuracy ARGS="--only backgrounds joins"`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import numpy as np

from aligner_client import AlignerClientError, AsyncAligner
from aligner_svc.domain import Alignment, WordStatus
from bench import gold, joins, languages, robustness, subtitles
from bench.answers import Case, align_all
from bench.service import Running, service

SETS = ("timit", "timit_long", "mahrt", "alice")
PARTS = ("marked", "backgrounds", "hour", "awkward", "joins", "languages", "subtitles")
SNR_DB = 10.0
SEED = 20_000
TOLERANCE = 0.05
"""Seconds. The confidence is the probability that both ends of a word are this close."""


def rows(alignment: Alignment, *, found_only: bool = False) -> list[dict[str, Any]]:
    return [
        {"text": word.text, "start": word.start, "end": word.end}
        for word in alignment.words
        if not (found_only and word.status is WordStatus.NOT_FOUND)
    ]


def header(title: str) -> None:
    print(f"\n== {title}")


async def marked(target: str) -> dict[str, dict[str, Alignment]]:
    header("hand-marked recordings")
    answers = {}
    for name in SETS:
        cases = [Case(item.name, item.audio.read_bytes(), item.text) for item in gold.recordings(name)]
        answers[name] = await align_all(target, cases)
    found_words = {name: {key: rows(value, found_only=True) for key, value in found.items()} for name, found in answers.items()}
    print(gold.score(found_words), end="")
    print(
        "words that are NOT_FOUND count as missing; the refiner's table of offsets was made on timit and mahrt (docs/engine.md)"
    )
    absent = {
        name: sum(w.status is not WordStatus.ALIGNED for a in found.values() for w in a.words) for name, found in answers.items()
    }
    print(f"words not ALIGNED: {absent}")
    return answers


async def noise(target: str) -> dict[str, Alignment]:
    header(f"timit with white noise at {SNR_DB:g} dB (seed {SEED})")
    cases = [
        Case(item.name, gold.wav(gold.with_noise(gold.samples(item.audio), SNR_DB, SEED + index)), item.text)
        for index, item in enumerate(gold.recordings("timit"))
    ]
    answers = await align_all(target, cases)
    print("all words, with the estimated times of those NOT_FOUND:")
    print(gold.score({"timit": {key: rows(value) for key, value in answers.items()}}), end="")
    print("found words only:")
    print(gold.score({"timit": {key: rows(value, found_only=True) for key, value in answers.items()}}), end="")
    whole = sum(all(word.status is WordStatus.NOT_FOUND for word in answer.words) for answer in answers.values())
    warned = sum(any(w.code == "TRANSCRIPT_MISMATCH" for w in answer.warnings) for answer in answers.values())
    print(f"clips without any found word: {whole} of {len(answers)}; with a TRANSCRIPT_MISMATCH warning: {warned}")
    return answers


def _threshold(good: Sequence[float], bad: Sequence[float]) -> float:
    """The threshold with the fewest scores on the wrong side: the middle of the widest such gap."""

    def cost(gap: tuple[float, float]) -> tuple[float, float]:
        middle = sum(gap) / 2
        wrong = sum(s < middle for s in good) / len(good) + sum(s >= middle for s in bad) / len(bad)
        return wrong, gap[0] - gap[1]

    return sum(min(pairwise(sorted({*good, *bad})), key=cost)) / 2


async def swapped(target: str, right: Mapping[str, Alignment]) -> None:
    header("transcripts swapped between clips (timit); threshold chosen on one half of the speakers, reported on the other")
    items = gold.recordings("timit")
    draw = random.Random(SEED)
    cases = []
    for item in items:
        others = draw.sample([other for other in items if other.text != item.text], 3)
        cases += [Case(f"{item.name}/{other.name}", item.audio.read_bytes(), other.text) for other in others]
    wrong = await align_all(target, cases)
    halves = [sorted({name.split("_")[0] for name in right})[part::2] for part in (0, 1)]
    for chosen, reported in (halves, reversed(halves)):
        good = [answer.match_score for name, answer in right.items() if name.split("_")[0] in chosen]
        bad = [answer.match_score for name, answer in wrong.items() if name.split("_")[0] in chosen]
        threshold = _threshold(good, bad)
        good = [answer.match_score for name, answer in right.items() if name.split("_")[0] in reported]
        bad = [answer.match_score for name, answer in wrong.items() if name.split("_")[0] in reported]
        print(
            f"threshold {threshold:.3f}: warned {sum(s < threshold for s in bad) / len(bad):.1%} of {len(bad)} wrong, "
            f"{sum(s < threshold for s in good) / len(good):.1%} of {len(good)} right"
        )
    for name, answers in (("wrong", wrong), ("right", right)):
        scores = [answer.match_score for answer in answers.values()]
        warned = sum(any(w.code == "TRANSCRIPT_MISMATCH" for w in answer.warnings) for answer in answers.values())
        found = np.mean([word.status is not WordStatus.NOT_FOUND for answer in answers.values() for word in answer.words])
        quartiles = " ".join(f"{value:.2f}" for value in np.percentile(scores, [0, 5, 50, 95, 100]))
        print(
            f"{name}: the server warned of {warned / len(answers):.1%} of {len(answers)}; {found:.1%} of words placed; "
            f"match score 0/5/50/95/100 %: {quartiles}"
        )


async def awkward(target: str) -> None:
    header("awkward files")
    manifest = json.loads((gold.GOLD / "awkward" / "manifest.json").read_text(encoding="utf-8"))
    async with AsyncAligner(target) as client:
        for entry in manifest:
            audio = (gold.GOLD / "awkward" / entry["file"]).read_bytes()
            language = entry.get("language", "en")
            text = entry.get("text") or "hello world"
            try:
                answer = await client.align(audio, text, language=language, timeout=120)
            except AlignerClientError as error:
                print(f"{entry['file']:<48} {error.reason}: {error.message}")
            else:
                placed = sum(word.status is not WordStatus.NOT_FOUND for word in answer.words)
                warnings = ", ".join(warning.code for warning in answer.warnings)
                print(f"{entry['file']:<48} {placed} of {len(answer.words)} words, match {answer.match_score:.2f} {warnings}")


def reliability(title: str, answers: Sequence[tuple[gold.Recording, Alignment]]) -> None:
    """Of the words with a confidence in each bin, how many have both ends within the tolerance?"""
    sure, right = [], []
    for recording, alignment in answers:
        if len(recording.words) != len(alignment.words):
            continue  # the text was split otherwise: the words cannot be paired
        for mark, word in zip(recording.words, alignment.words, strict=True):
            sure.append(word.confidence)
            right.append(max(abs(word.start - mark["start"]), abs(word.end - mark["end"])) <= TOLERANCE)
    header(f"reliability, {title}: confidence against words with both ends within {TOLERANCE * 1000:.0f} ms")
    confidence, correct = np.array(sure), np.array(right)
    edges = [0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 1.01]
    for low, high in pairwise(edges):
        inside = (confidence >= low) & (confidence < high)
        if inside.any():
            mean, share = confidence[inside].mean(), correct[inside].mean()
            print(f"{low:.2f}..{min(high, 1):.2f}  {inside.sum():5d} words  confidence {mean:.3f}  right {share:.3f}")
    ranks = confidence.argsort().argsort()
    if 0 < correct.sum() < len(correct):
        positives = correct.sum()
        area = (ranks[correct].sum() - positives * (positives - 1) / 2) / (positives * (len(correct) - positives))
        print(f"area under the curve, right against wrong: {area:.3f}")


async def joined(target: str) -> None:
    made = joins.joins()
    header(f"recording and transcript differ by passages: {len(made)} random joins of timit (seed {joins.SEED})")
    refused: dict[str, str] = {}
    answers = await align_all(target, [Case(join.key, gold.wav(join.samples), join.text) for join in made], refused)
    print(joins.report((join, answers[join.key]) for join in made if join.key in answers))
    for key, reason in refused.items():
        print(f"{key} was refused: {reason}")


async def measure(running: Running, parts: Sequence[str]) -> None:
    if "marked" in parts:
        answers = await marked(running.target)
        noisy = await noise(running.target)
        await swapped(running.target, answers["timit"])
        clean = {item.name: item for item in gold.recordings("timit")}
        reliability("timit", [(clean[name], answer) for name, answer in answers["timit"].items()])
        both = [(clean[n], a) for found in (answers["timit"], noisy) for n, a in found.items()]
        reliability("timit and timit in noise", both)
    if "backgrounds" in parts:
        await robustness.backgrounds(running.target, SEED)
    if "hour" in parts:
        await robustness.hour(running.target, SEED)
    if "awkward" in parts:
        await awkward(running.target)
    if "joins" in parts:
        await joined(running.target)
    if "languages" in parts:
        await languages.measure(running.target)
    if "subtitles" in parts:
        await subtitles.measure(running.target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", help="HOST:PORT of a running service; without it one is started")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    args = parser.parse_args()
    with nullcontext(Running(args.target, 0, 0.0)) if args.target else service() as running:
        asyncio.run(measure(running, args.only))


if __name__ == "__main__":
    main()
