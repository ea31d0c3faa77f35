"""A few seconds of the soak: every kind of client gets what it should. `make soak` takes 10 minutes and sees what grows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.clients import ROLES
from tests.soak.growth import Use
from tests.soak.running import soak


@pytest.mark.timeout(180)
async def test_a_short_soak_has_no_unexpected_error() -> None:
    report = await soak(8.0, [replace(role, clients=max(1, role.clients // 4)) for role in ROLES])
    assert report.unexpected == []
    assert report.faults == []
    assert all(ended.total() for ended in report.ended.values()), report.table()
    assert report.ended["unary"]["OK"]
    assert report.ended["live stream"]["OK"]


@pytest.mark.parametrize(("step", "grows"), [(0.0, False), (0.2, True)])
def test_growth_is_told_from_noise(step: float, grows: bool) -> None:
    use = Use("memory MB", 10.0, [(float(at), 100 + 3 * (at % 2) + step * at) for at in range(600)])
    assert use.grows(0.0) is grows
