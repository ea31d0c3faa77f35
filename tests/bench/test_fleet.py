"""bench/fleet.py against what queueing theory says."""

from __future__ import annotations

import numpy as np
import pytest

from bench.fleet import GATEWAY_SECONDS, Scenario, Simulation, fair_shares, jain


def test_gateways_wait_as_long_as_a_queue_with_random_arrivals_and_equal_service_does() -> None:
    """Pollaczek-Khinchine: rho / (2 (1 - rho)) services."""
    load = 0.5
    result = Simulation(Scenario(load / GATEWAY_SECONDS * 5, 5, 500, 15.0)).run()
    assert np.mean(result.gateway_wait) == pytest.approx(load / (2 * (1 - load)) * GATEWAY_SECONDS, rel=0.05)


def test_a_fair_share_is_what_was_asked_or_an_equal_part_of_the_rest() -> None:
    assert fair_shares([1.0, 10.0, 4.0], 9.0) == [1.0, 4.0, 4.0]
    assert (jain([2.0, 2.0]), jain([1.0, 0.0])) == (1.0, 0.5)
