"""bench/vs.py: a table that says what was lost, and a plot."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bench.vs import Figures, Results, plot, table


def test_calls_that_were_lost_are_in_the_table_and_not_in_its_percentiles(tmp_path: Path) -> None:
    busy = Figures([0.1, 0.2, 0.3], Counter({"SERVER_OVERLOADED": 7}), wall=2.0, memory=300.4)
    beside = Figures([1.0], wall=1.0, other=Counter({"AUDIO_TOO_LONG": 2}))
    results: Results = {
        "64 callers": {"service": busy, "app": Figures([4.0], wall=4.0)},
        "beside it": {"service": beside, "app": beside},
    }
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(results).splitlines()[2:]]
    assert rows[0] == ["64 callers", "service", "1.5", "200", "300", "7 SERVER_OVERLOADED", "300", ""]
    assert rows[2] == ["beside it", "service", "1.0", "1000", "1000", "0", "0", "2 AUDIO_TOO_LONG"]
    plot(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
