"""Some attacks of every kind on a real prod server: none gets through. `make attack` tries all of them."""

from __future__ import annotations

import pytest

from tests.attack.kinds import KINDS
from tests.attack.running import arena, attack


@pytest.mark.timeout(300)
async def test_none_gets_through() -> None:
    async with arena() as running:
        report = await attack(running, KINDS, short=True)
    assert report.through == []
    assert report.faults == []
    assert all(row.tried for row in report.rows if "no clamd" not in row.kind)


def test_there_are_a_thousand() -> None:
    attacks = [f"{kind.name}: {one.name}" for kind in KINDS for one in kind.attacks()]
    assert len(attacks) >= 1000
    assert len(set(attacks)) == len(attacks)
