"""The dashboard as its JSON has it, whoever wrote that: rows of panels, and what each asks Prometheus for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """One query and how its series are named."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph. `unit` as Grafana names it, `at_most` in it; None: as high as it goes."""

    title: str
    unit: str
    stacked: bool
    at_most: float | None
    targets: Sequence[Target]


@dataclass(frozen=True, slots=True)
class Row:
    """What stands under one heading, from left to right and from top to bottom."""

    title: str
    panels: Sequence[Panel]


def read(path: Path) -> list[Row]:
    """Raises OSError, and KeyError or ValueError where it is no dashboard of rows and time series."""
    rows: list[tuple[str, list[Panel]]] = []
    for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
        if panel["type"] == "row":
            rows.append((panel["title"], []))
        elif panel["type"] == "timeseries" and rows:
            rows[-1][1].append(_panel(panel))
        else:
            raise ValueError(f"a panel that cannot be drawn: {panel['title']!r}, a {panel['type']}, in row {len(rows)}")
    return [Row(title, panels) for title, panels in rows]


def _panel(panel: dict[str, Any]) -> Panel:
    defaults = panel["fieldConfig"]["defaults"]
    return Panel(
        panel["title"],
        defaults["unit"],
        defaults["custom"]["stacking"]["mode"] == "normal",
        defaults.get("max"),
        [Target(target["expr"], target["legendFormat"]) for target in panel["targets"]],
    )
