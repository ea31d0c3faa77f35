"""How many replicas there should be: more while calls wait, fewer while replicas idle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

_BUSY: Final = 0.7
"""Calls at a replica, for each of its processes, above which one replica fewer would make calls wait."""


def wanted(current: int, waits: Sequence[float], loads: Sequence[float], target: float) -> int:
    """Replicas for what those that run report: how long their oldest call has waited (s), and their calls for each process.

    While calls wait longer than `target` on average, as many more as the wait is over it, at most twice as many at a time.
    """
    if not waits or not loads:
        return current
    mean = sum(waits) / len(waits)
    if mean > target:
        return current + max(1, math.ceil(current * min(1.0, (mean - target) / target)))
    return min(current, max(1, math.ceil(sum(loads) / _BUSY)))


class QueueWait:
    """The policy that app.application names. Ray makes one in its controller, and calls it with an AutoscalingContext."""

    def __init__(self, target: float) -> None:
        """`target`: seconds, as in `wanted`."""
        self._target = target

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """The number of replicas, and a state, which is not needed."""
        metrics: Mapping[str, Mapping[Any, float]] = context.aggregated_metrics or {}
        waits, loads = (list(metrics.get(name, {}).values()) for name in ("wait", "load"))
        count = wanted(context.target_num_replicas, waits, loads, self._target)
        return min(max(count, context.capacity_adjusted_min_replicas), context.capacity_adjusted_max_replicas), {}
