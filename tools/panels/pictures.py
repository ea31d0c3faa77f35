"""One SVG for each row of the dashboard, and whether those that are there are the ones that would be drawn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from tools.panels.board import Row
from tools.panels.chart import Chart
from tools.panels.legend import WIDTH, lines, width
from tools.panels.recorded import Recording

COLUMNS = 3
_EDGE, _GAP, _HEAD, _LINE = 12.0, 10.0, 42.0, 15.0
# Its own background and Grafana's colours: the same on a light page and on a dark one.
_STYLE = """\
text{font-family:-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;font-size:11px;fill:#ccccdc}
.page{fill:#111217}.panel{fill:#181b1f;stroke:#2a2d33}
.row{font-size:16px;font-weight:600;fill:#e6e6ee}.told{fill:#a6a6b4}.how{fill:#8e8e9c;text-anchor:end}
.title{font-size:12.5px;font-weight:600}.tick{font-size:10px;fill:#9a9aa8}.name{fill:#b4b4c2}
.value{fill:#fff;font-weight:600}.rest,.none{fill:#8e8e9c}.none{font-size:13px;text-anchor:middle}
.grid{stroke:#2c3036;stroke-width:1}.phase{stroke:#5a6070;stroke-width:1;stroke-dasharray:2 3}
.line{fill:none;stroke-width:1.5;stroke-linejoin:round}.key{stroke-width:3;stroke-linecap:round}"""


def pictures(rows: Sequence[Row], recording: Recording) -> dict[str, str]:
    """SVGs by the names of their files. Raises KeyError for a query that was not recorded, ValueError for an unknown unit."""
    return {name_of(row): picture(row, recording) for row in rows}


def name_of(row: Row) -> str:
    """Of the file."""
    return re.sub(r"\W+", "-", row.title.lower()).strip("-") + ".svg"


def picture(row: Row, recording: Recording) -> str:
    """The whole document."""
    run = recording.run
    charts = [
        Chart(
            panel,
            lines([(target.legend, recording.series(row.title, panel.title, target.expr)) for target in panel.targets]),
            run,
        )
        for panel in row.panels
    ]
    wide = 2 * _EDGE + COLUMNS * WIDTH + (COLUMNS - 1) * _GAP
    body: list[str] = []
    told = _story(recording.run.phases, wide - 2 * _EDGE - 8)
    y = _HEAD + _LINE * len(told) + 6
    for first in range(0, len(charts), COLUMNS):
        side_by_side = charts[first : first + COLUMNS]
        height = max(chart.height for chart in side_by_side)
        for column, chart in enumerate(side_by_side):
            body.append(chart.svg(_EDGE + column * (WIDTH + _GAP), y, height, f"plot{first + column}"))
        y += height + _GAP
    tall = y - _GAP + _EDGE
    title = escape(row.title)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:g} {tall:g}" width="{wide:g}" height="{tall:g}"'
            f' role="img" aria-label="Dashboard row: {title}">',
            f"<style>{_STYLE}</style>",
            f'<rect class="page" width="{wide:g}" height="{tall:g}" rx="6"/>',
            f'<text class="row" x="{_EDGE + 4:g}" y="28">{title}</text>',
            f'<text class="how" x="{wide - _EDGE - 4:g}" y="28">{escape(_how(recording))}</text>',
            *(
                f'<text class="told" x="{_EDGE + 4:g}" y="{_HEAD + 4 + _LINE * at:g}">{escape(line)}</text>'
                for at, line in enumerate(told)
            ),
            *body,
            "</svg>\n",
        ]
    )


def stale(rows: Sequence[Row], recording: Recording, folder: Path) -> list[str]:
    """The files of `folder` that are not what would be drawn, a line each. Raises as `pictures` does."""
    wanted = pictures(rows, recording)
    there = {file.name: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.svg"))}
    return [
        *(f"{name} is not what tools/panels draws of the recording" for name, svg in wanted.items() if there.get(name) != svg),
        *(f"{name} belongs to no row of the dashboard" for name in there if name not in wanted),
    ]


def _story(phases: Sequence[tuple[float, str]], room: float) -> list[str]:
    """What the dashed lines stand for, in lines that fit."""
    told = [""]
    for at, what in phases:
        part = f"{int(at) // 60}:{int(at) % 60:02} {what}"
        longer = f"{told[-1]}  ·  {part}" if told[-1] else part
        if width(longer) > room:
            told.append(part)
        else:
            told[-1] = longer
    return told


def _how(recording: Recording) -> str:
    run = recording.run
    length = f"{run.step * (run.points - 1) / 60:.3g} minutes"
    return f"{length}, recorded {run.when[:10]}, version {run.version}, {run.engine}, {run.machine.split(',')[0]}"
