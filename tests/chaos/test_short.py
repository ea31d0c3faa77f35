"""A few of the faults and one drain. `make chaos` does all of them, and 20 drains."""

from __future__ import annotations

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.running import chaos

SHORT = ("all workers: kill -9", "one aligner: SIGSTOP", "Redis: kill -9")


@pytest.mark.timeout(300)
async def test_no_call_is_lost_and_no_good_file_called_bad() -> None:
    """Not judged: how soon the service recovers, which is what `make chaos` measures."""
    report = await chaos([fault for fault in FAULTS if fault.name in SHORT], drains=1, pause=0.3)
    assert len(report.rows) == len(SHORT) + 1
    assert [(row.fault, row.lost, row.bad) for row in report.rows] == [(row.fault, 0, 0) for row in report.rows], report.wrong
    assert report.faults == []
