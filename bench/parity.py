"""Does the packed engine answer as qwen-asr's modules do? In fp32, pair by pair.

    .venv/bin/python -m bench.parity                 true size, random weights, 200 pairs; a quarter of an hour on 2 cores
    .venv/bin/python -m bench.parity --tiny          the tests' checkpoint; a minute
    .venv/bin/python -m bench.parity --published     the published configuration and tokenizer, with either size
    .venv/bin/python -m bench.parity --model FOLDER

The reference runs one clip at a time, with attention within 8 s. The engine runs each clip alone, and all of them in batches
of 8 in another order. qwen-asr as shipped is compared too, for the record.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from aligner_svc.domain import SAMPLE_RATE
from aligner_svc.engines.qwen import checkpoint
from aligner_svc.engines.qwen.devices.preparation import Preparation, Prepared
from aligner_svc.engines.qwen.forward import PackedAligner
from aligner_svc.engines.qwen.timestamps import TimestampSlots, repair
from aligner_svc.text import model_words as words
from tests.kit import checkpoint as checkpoints
from tests.kit import qwen_material
from tests.kit.qwen_material import Pair
from tests.kit.qwen_reference import Reference, Timed

_BATCH = 8
_WINDOW_SECONDS = 8.0
_SPREAD = ((0.8, 0.2, 4.0), (0.17, 4.0, 12.0), (0.03, 12.0, 60.0))
"""Share of the pairs, minimum and maximum seconds: most are short, since long ones would take all the time."""
_SHIPPED = 32
"""Pairs up to 8 s that qwen-asr as shipped aligns; it aligns all pairs over 8 s."""


@dataclass(slots=True)
class Tally:
    """Counts of one comparison with the reference."""

    pairs: int = 0
    same: int = 0
    words: int = 0
    same_words: int = 0
    shifts: list[float] = field(default_factory=list)
    """Seconds, of the words that differ."""

    def add(self, wanted: Sequence[Timed], got: Sequence[Timed]) -> None:
        """Count one pair."""
        assert len(wanted) == len(got)
        equal = [one == other for one, other in zip(wanted, got, strict=True)]
        self.pairs += 1
        self.same += all(equal)
        self.words += len(equal)
        self.same_words += sum(equal)
        self.shifts += [
            max(abs(one.start - other.start), abs(one.end - other.end))
            for one, other in zip(wanted, got, strict=True)
            if one != other
        ]

    def row(self, name: str) -> str:
        shift = f"{np.median(self.shifts):.2f} s" if self.shifts else "-"
        share = f"{self.same_words / self.words:.2%}" if self.words else "-"
        return f"| {name} | {self.same} of {self.pairs} | {share} of {self.words} | {shift} |"


class Comparison:
    """One checkpoint on both sides."""

    def __init__(self, folder: Path) -> None:
        loaded = checkpoint.load(str(folder), torch.device("cpu"), torch.float32)
        self._prepare = Preparation(loaded, torch.float32)
        self._ours = PackedAligner(loaded)
        self._segment_ms = loaded.segment_ms
        self._reference = Reference(folder)

    def run(self, pairs: Sequence[Pair]) -> None:
        """Print the table."""
        alone, batched, shipped_short, shipped_long, shipped_batch = (Tally() for _ in range(5))
        prepared, wanted = [], []
        furthest, classes = 0.0, []
        began = time.perf_counter()
        for index, pair in enumerate(pairs):
            item = self._prepare(pair.samples, _spoken(pair))
            reference = self._reference.logits(*pair)
            logits = self._ours.logits([item])
            furthest = max(furthest, ((logits - reference).abs().max() / reference.abs().max()).item())
            classes.append(len(set(reference.argmax(-1).tolist())) / len(reference))
            expected = self._timed(pair, reference.argmax(-1).tolist())
            alone.add(expected, self._timed(pair, logits.argmax(-1).tolist()))
            into = shipped_short if len(pair.samples) <= _WINDOW_SECONDS * SAMPLE_RATE else shipped_long
            if into is shipped_long or into.pairs < _SHIPPED:
                into.add(expected, self._reference.shipped([pair.samples], [pair.text], [pair.language])[0])
            prepared.append(item)
            wanted.append(expected)
            if index % 20 == 19:
                print(f"{index + 1} pairs, {time.perf_counter() - began:.0f} s", flush=True)
        order = np.random.default_rng(5).permutation(len(pairs))
        for first in range(0, len(order), _BATCH):
            chosen = [int(index) for index in order[first : first + _BATCH]]
            batch: list[Prepared] = [prepared[index] for index in chosen]
            for index, slots in zip(chosen, self._ours(batch), strict=True):
                batched.add(wanted[index], self._slots(pairs[index], slots))
        short = [index for index, pair in enumerate(pairs) if len(pair.samples) <= _WINDOW_SECONDS * SAMPLE_RATE][:_SHIPPED]
        for first in range(0, len(short), _BATCH):
            chosen = short[first : first + _BATCH]
            columns = zip(*(pairs[index] for index in chosen), strict=True)
            for index, got in zip(chosen, self._reference.shipped(*columns), strict=True):
                shipped_batch.add(wanted[index], got)
        print("\n| against the reference | pairs with every word and time equal | words | median shift of the others |")
        print("|---|---|---|---|")
        print(alone.row("this engine, a clip alone"))
        print(batched.row(f"this engine, batches of {_BATCH} in another order"))
        print(shipped_short.row("qwen-asr as shipped, alone, up to 8 s: no attention beyond the window"))
        print(shipped_long.row("qwen-asr as shipped, alone, over 8 s: attention leaves the window"))
        print(shipped_batch.row(f"qwen-asr as shipped, batches of {_BATCH}, up to 8 s: spectrograms of padded audio"))
        print(f"\nlargest difference of a logit: {furthest:.1e} of the largest logit (goal 1e-4)")
        print(f"distinct classes: {np.mean(classes):.0%} of a pair's slots on average: the answers are not all the same")

    def _timed(self, pair: Pair, classes: Sequence[int]) -> list[Timed]:
        times = repair([float(index * self._segment_ms) for index in classes]).times
        seconds = iter([round(time / 1000, 3) for time in times])
        return [Timed(word, next(seconds), next(seconds)) for word in _spoken(pair)]

    def _slots(self, pair: Pair, slots: TimestampSlots) -> list[Timed]:
        return self._timed(pair, slots.classes.tolist())


def _spoken(pair: Pair) -> list[str]:
    return [token.spoken[0] for token in words.split(pair.text, pair.language)]


def _pairs(how_many: int) -> list[Pair]:
    counts = [
        length
        for seed, (share, minimum, maximum) in enumerate(_SPREAD)
        for length in qwen_material.log_uniform(seed, round(share * how_many), minimum, maximum)
    ]
    return qwen_material.pairs(11, counts)


def _random_weights(folder: Path, *, tiny: bool, published: bool) -> Path:
    if published:
        return checkpoints.published(folder, checkpoints.TINY if tiny else None)
    return checkpoints.build(folder, checkpoints.TINY if tiny else checkpoints.TRUE_SIZE, segment_ms=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--model", type=Path, help="a checkpoint; default: random weights of the true size, in a temporary folder"
    )
    parser.add_argument("--tiny", action="store_true", help="random weights of the tests' size")
    parser.add_argument("--published", action="store_true", help="with the published files; they lie in ../shared/qwen")
    parser.add_argument("--pairs", type=int, default=200, metavar="N")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.model or _random_weights(Path(scratch), tiny=chosen.tiny, published=chosen.published)
        pairs = _pairs(chosen.pairs)
        audio = sum(len(pair.samples) for pair in pairs) / SAMPLE_RATE
        print(f"{len(pairs)} pairs in {len({pair.language for pair in pairs})} languages, {audio:.0f} s of audio", flush=True)
        Comparison(folder).run(pairs)


if __name__ == "__main__":
    main()
