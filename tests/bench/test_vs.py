"""bench/vs.py: a table that says what was lost, and a plot."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import vs
from bench.material import Speech
from bench.vs import Figures, Results, Situation, plot, table


def test_calls_that_were_lost_are_in_the_table_and_not_in_its_percentiles(tmp_path: Path) -> None:
    busy = Figures([0.1, 0.2, 0.3], Counter({"SERVER_OVERLOADED": 7}), wall=2.0, memory=300.4, cpu=0.6)
    beside = Figures([1.0], wall=1.0, other=Counter({"AUDIO_TOO_LONG": 2}))
    results: Results = {
        "64 callers": {"service": busy, "app": Figures([4.0], wall=4.0)},
        "beside it": {"service": beside, "app": beside},
    }
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(results).splitlines()[2:]]
    assert rows[0] == ["64 callers", "service", "1.5", "200", "300", "200", "7 SERVER_OVERLOADED", "300", ""]
    assert rows[2] == ["beside it", "service", "1.0", "1000", "1000", "0", "0", "0", "2 AUDIO_TOO_LONG"]
    plot(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_turns_of_a_situation_follow_each_other_and_no_situation_meets_what_the_app_goes_on_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: list[str] = []

    @contextmanager
    def running(kind: str) -> Iterator[tuple[str, int]]:
        happened.append(f"{kind} starts")
        yield kind, os.getpid()

    async def measure(kind: str, address: str, clips: object, situation: Situation, figures: Figures, **_: object) -> None:
        happened.append(f"{kind}: {situation.name}")
        figures.latencies.append(1.0)

    async def starts(kind: str, address: str, clip: object) -> list[float]:
        return [0.5 if kind == "service" else 0.51]

    for name, part in (("running", running), ("_measure", measure), ("_starts", starts)):
        monkeypatch.setattr(vs, name, part)
    found = [Situation("a", 1), Situation("b", 1, leaves=True), Situation("c", 1, leaves=True)]
    results = vs.compare([Speech(b"", "", 1.0)], found, seconds=1.0, rounds=1)
    assert [line for line in happened if "warm" not in line] == [
        *("service starts", "app starts"),
        *("service: a", "app: a", "app: a", "service: a"),
        *("service: b", "app: b"),
        "app starts",
        *("service: c", "app: c"),
    ]
    assert len(results["a"]["app"].latencies) == 2
