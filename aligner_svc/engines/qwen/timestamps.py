"""The model's times, and what makes them non-decreasing."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class TimestampSlots(NamedTuple):
    """The most likely class of each timestamp of one clip, and its probability."""

    classes: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Repaired:
    """`times` never decrease (ms, whole); `kept[i]`: time i is the model's own."""

    times: list[int]
    kept: list[bool]


def repair(times: Sequence[float]) -> Repaired:
    """Keep the longest non-decreasing subsequence, and infer the other times from their neighbours.

    `times` (ms): start and end of each word, in the order of the transcript. Equal to the bit to
    `Qwen3ForceAlignProcessor.fix_timestamp` (qwen_asr 0.0.6), in n log n instead of n² time; accepts an empty list, where
    the reference fails.
    """
    model_times = [float(time) for time in times]
    repaired = model_times.copy()
    kept = [False] * len(model_times)
    last = -1
    for at in _longest_run(model_times):
        kept[at] = True
        _fill(repaired, last + 1, at)
        last = at
    _fill(repaired, last + 1, len(repaired))
    return Repaired([int(time) for time in repaired], kept)


def _longest_run(times: list[float]) -> list[int]:
    """Indices of the longest non-decreasing subsequence; of several the one the reference takes.

    It ends earliest, and each of its elements follows the earliest possible one.
    """
    tails: list[float] = []  # per length, the smallest time that ends a run of it
    # Per length, all times that end a longest run of it: later ones are smaller, or they would
    # have made the run longer. Negated, for bisect needs them in increasing order.
    negated: list[list[float]] = []
    indices: list[list[int]] = []
    parents: list[int] = []
    for at, time in enumerate(times):
        length = bisect_right(tails, time)
        if length == len(tails):
            tails.append(time)
            negated.append([])
            indices.append([])
        tails[length] = time
        parents.append(indices[length - 1][bisect_left(negated[length - 1], -time)] if length else -1)
        negated[length].append(-time)
        indices[length].append(at)

    run: list[int] = []
    at = indices[-1][0] if indices else -1
    while at >= 0:
        run.append(at)
        at = parents[at]
    return run[::-1]


def _fill(times: list[float], start: int, end: int) -> None:
    """Infer `times[start:end]` from the time before and the time after. Arithmetic in the reference's order."""
    count = end - start
    if not count:
        return
    if start == 0 or end == len(times):
        times[start:end] = [times[end] if start == 0 else times[start - 1]] * count
        return
    left, right = times[start - 1], times[end]
    if count <= 2:
        times[start:end] = [left, right][:count]  # the nearer; halfway, the left one
        return
    step = (right - left) / (count + 1)
    times[start:end] = [left + step * nth for nth in range(1, count + 1)]
