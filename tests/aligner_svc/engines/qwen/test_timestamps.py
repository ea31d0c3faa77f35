"""Repaired times equal those of the reference."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_svc.engines.qwen.timestamps import repair

_SLOT = 80.0  # ms, the model's step
_SLOTS = st.integers(0, 3750).map(lambda slot: slot * _SLOT)


Reference = Callable[[npt.NDArray[np.floating]], list[int]]


@pytest.fixture(scope="module")
def reference() -> Reference:
    # The import loads dynet, which turns subnormal floats off for the thread that it happens in.
    with ThreadPoolExecutor(1) as loader:
        module = loader.submit(import_module, "qwen_asr.inference.qwen3_forced_aligner").result()
    return module.Qwen3ForceAlignProcessor().fix_timestamp


def check(reference: Reference, times: Sequence[float]) -> None:
    repaired = repair(times)
    assert repaired.times == reference(np.array(times))
    assert repaired.times == sorted(repaired.times)
    assert len(repaired.kept) == len(times)
    own = list(itertools.compress(times, repaired.kept))
    assert own == sorted(own)
    assert list(itertools.compress(repaired.times, repaired.kept)) == [int(time) for time in own]


def test_no_times() -> None:
    repaired = repair([])
    assert (repaired.times, repaired.kept) == ([], [])


@pytest.mark.parametrize(
    ("times", "repaired", "kept"),
    [
        ([80], [80], "k"),
        ([0, 80, 80, 160], [0, 80, 80, 160], "kkkk"),
        ([0, 800, 80, 160], [0, 0, 80, 160], "k.kk"),  # one: the time before
        ([0, 80, 8000, 7920, 160, 240, 320], [0, 80, 80, 160, 160, 240, 320], "kk..kkk"),  # two: the nearer
        ([0, 80, 900, 800, 700, 480, 560, 640], [0, 80, 180, 280, 380, 480, 560, 640], "kk...kkk"),  # three: a ramp
        ([800, 720, 0, 80, 160], [0, 0, 0, 80, 160], "..kkk"),
        ([0, 80, 160, 40, 20], [0, 80, 160, 160, 160], "kkk.."),
        ([240, 160, 80], [240, 240, 240], "k.."),  # as long as any other, and the earliest
        ([0, 1000, 10, 20, 30, 500], [0, 0, 10, 20, 30, 500], "k.kkkk"),
        ([0, 500, 400, 300, 200, 100.5, 101], [0, 20, 40, 60, 80, 100, 101], "k....kk"),  # fractions are cut off
    ],
)
def test_inferred_times(times: list[float], repaired: list[int], kept: str) -> None:
    result = repair(times)
    assert result.times == repaired
    assert result.kept == [sign == "k" for sign in kept]


@settings(max_examples=200)
@given(times=st.lists(st.integers(0, 5).map(lambda slot: slot * _SLOT), min_size=1, max_size=60))
def test_many_equal_times(reference: Reference, times: list[float]) -> None:
    check(reference, times)


@settings(max_examples=200)
@given(times=st.lists(_SLOTS, min_size=1, max_size=80))
def test_times_of_the_model(reference: Reference, times: list[float]) -> None:
    check(reference, times)


@settings(max_examples=200)
@given(times=st.lists(st.integers(-(10**12), 10**12).map(lambda number: number / 999), min_size=1, max_size=60))
def test_any_times(reference: Reference, times: list[float]) -> None:
    check(reference, times)


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("alphabet", [3, 40, 3750])
@pytest.mark.parametrize("count", [299, 300])
def test_long_rows(reference: Reference, count: int, alphabet: int, noise: float) -> None:
    """Times in order, with some replaced at random."""
    chance = random.Random(f"{count} {alphabet} {noise}")
    for _ in range(4):
        steady = [place * alphabet // count for place in range(count)]
        check(reference, [_SLOT * (chance.randrange(alphabet) if chance.random() < noise else slot) for slot in steady])


@pytest.mark.parametrize(
    "slots",
    [
        [7] * 300,
        list(range(300)),
        list(range(300, 0, -1)),
        [place % 17 for place in range(300)],
        [-(place % 17) for place in range(300)],
        [place // 17 - place % 17 for place in range(300)],
        [place // 2 if place % 2 else 300 - place for place in range(300)],
        [*range(150), *range(150)],
        [*range(150, 300), *range(150)],
        [300, *range(298), 0],
    ],
)
def test_patterns(reference: Reference, slots: list[int]) -> None:
    check(reference, [slot * _SLOT for slot in slots])


def test_every_row_of_six(reference: Reference) -> None:
    for length in range(1, 7):
        for slots in itertools.product(range(4), repeat=length):
            check(reference, [slot * _SLOT for slot in slots])


def test_float32_times_of_the_model(reference: Reference) -> None:
    times = np.array([0, 3, 2, 9, 9, 1, 4, 5], dtype=np.float32) * np.float32(80)
    assert repair(times.tolist()).times == repair(list(times)).times == reference(times)
