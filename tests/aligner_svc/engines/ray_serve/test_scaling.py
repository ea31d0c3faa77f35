"""How many replicas the queue asks for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from aligner_svc.engines.ray_serve.scaling import QueueWait, wanted


@pytest.mark.parametrize(
    ("current", "waits", "loads", "count"),
    [
        (2, [], [], 2),  # nothing is known
        (2, [0.1, 0.1], [1.0, 1.0], 2),
        (2, [0.3, 0.3], [3.0, 3.0], 3),
        (2, [9.0, 9.0], [50.0, 50.0], 4),  # at most twice as many at a time
        (10, [0.3] * 10, [2.0] * 10, 12),
        (4, [0.0] * 4, [0.1] * 4, 1),
        (4, [0.0] * 4, [0.6] * 4, 4),
        (4, [0.0] * 4, [0.0] * 4, 1),
    ],
)
def test_replicas_follow_the_wait_up_and_the_load_down(current: int, waits: list[float], loads: list[float], count: int) -> None:
    assert wanted(current, waits, loads, target=0.25) == count


@pytest.mark.parametrize(("wait", "count"), [(9.0, 5), (0.0, 2)])
def test_the_number_stays_between_the_bounds(wait: float, count: int) -> None:
    context = SimpleNamespace(
        aggregated_metrics={"wait": {"a": wait}, "load": {"a": 0.0}},
        target_num_replicas=4,
        capacity_adjusted_min_replicas=2,
        capacity_adjusted_max_replicas=5,
    )
    assert QueueWait(0.25)(context) == (count, {})
