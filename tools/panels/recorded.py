"""The file between a run and its pictures: what Prometheus answered to every query of the dashboard."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.panels.board import Row

DIGITS = 4
"""Significant ones: more than a picture shows, and a file that can be reviewed."""


@dataclass(frozen=True, slots=True)
class Run:
    """How it was recorded. `step` and `rate_interval` in seconds, `when` in UTC."""

    when: str
    version: str
    engine: str
    machine: str
    beside: Sequence[str]
    """Servers the service depended on."""
    step: int
    rate_interval: int
    points: int
    phases: Sequence[tuple[float, str]]
    """When each began, in seconds from the start, and what it was."""


@dataclass(frozen=True, slots=True)
class Series:
    """One value a step; None: there was none, and the line has a gap."""

    labels: dict[str, str]
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Recording:
    """The series of every query, by row, title of the panel and PromQL."""

    run: Run
    rows: dict[str, dict[str, dict[str, list[Series]]]]

    def series(self, row: str, panel: str, expr: str) -> list[Series]:
        """Empty: there were none. Raises KeyError for a query that was not asked."""
        return self.rows[row][panel][expr]


def rounded(values: Iterable[float | None]) -> list[float | None]:
    """NaN and the infinities become gaps: that is what Grafana shows of a division by zero."""
    return [None if value is None or not math.isfinite(value) else _short(float(f"{value:.{DIGITS}g}")) for value in values]


def _short(value: float) -> float:
    return int(value) if value == int(value) else value


def asked(rows: Iterable[Row]) -> Iterator[tuple[str, str, str]]:
    """Row, panel and PromQL of everything a dashboard asks for."""
    for row in rows:
        for panel in row.panels:
            for target in panel.targets:
                yield row.title, panel.title, target.expr


def differences(rows: Sequence[Row], recording: Recording) -> list[str]:
    """What the dashboard asks for and the run did not, and the other way round; empty: they are of one piece."""
    wanted = set(asked(rows))
    had = {(row, panel, expr) for row, panels in recording.rows.items() for panel, exprs in panels.items() for expr in exprs}
    return [
        *(f"not recorded: {row} / {panel}: {expr}" for row, panel, expr in sorted(wanted - had)),
        *(f"no longer in the dashboard: {row} / {panel}: {expr}" for row, panel, expr in sorted(had - wanted)),
    ]


def write(recording: Recording) -> str:
    """JSON with a line for each series, so that a new run's differences can be read."""

    def brief(value: object) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    rows = []
    for row, panels in recording.rows.items():
        members = []
        for panel, exprs in panels.items():
            queries = []
            for expr, found in exprs.items():
                lines = ",\n".join(brief([series.labels, series.values]) for series in found)
                queries.append(f"{brief(expr)}: [{lines and chr(10)}{lines}]")
            members.append(f"{brief(panel)}: {{\n{(',' + chr(10)).join(queries)}}}")
        rows.append(f"{brief(row)}: {{\n{(',' + chr(10)).join(members)}}}")
    joined = ",\n".join(rows)
    return f'{{"run": {json.dumps(asdict(recording.run), ensure_ascii=False)},\n"rows": {{\n{joined}}}}}\n'


def read(path: Path) -> Recording:
    """Raises OSError, and KeyError, TypeError or ValueError for what `write` did not write."""
    document = json.loads(path.read_text(encoding="utf-8"))
    run = document["run"] | {"phases": tuple((at, what) for at, what in document["run"]["phases"])}
    rows = {
        row: {
            panel: {expr: [Series(labels, values) for labels, values in found] for expr, found in exprs.items()}
            for panel, exprs in panels.items()
        }
        for row, panels in document["rows"].items()
    }
    return Recording(Run(**run), rows)
