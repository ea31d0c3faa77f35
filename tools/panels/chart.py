"""One panel as SVG: a graph with gaps where there was nothing, an axis from zero, and each series' last value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from tools.panels.board import Panel
from tools.panels.legend import MARGIN, WIDTH, Line, coloured, legend, width
from tools.panels.recorded import Run
from tools.panels.units import UNITS

_LEFT, _RIGHT, _TOP, _AXIS, _BOTTOM = 64.0, 12.0, 38.0, 22.0, 10.0
_LOWEST = 118.0
"""Of a graph whose neighbours have no longer legend; otherwise it takes the room."""
_LINE, _TITLE = 16.0, 12.5
NO_DATA = "no data in this run"


class Chart:
    """A panel of WIDTH and of the `height` its legend needs; the graph fills what is beyond."""

    def __init__(self, panel: Panel, found: Sequence[Line], run: Run) -> None:
        """Raises ValueError for a unit that is not known."""
        if panel.unit not in UNITS:
            raise ValueError(f"panel {panel.title!r} has a unit that cannot be written: {panel.unit}")
        self._panel = panel
        self._run = run
        self._unit = UNITS[panel.unit]
        self._lines = coloured(found)
        self._legend = legend(self._lines, self._unit)
        rows = self._legend[-1].line + 1 if self._legend else 0
        self._beside = _TOP + _AXIS + rows * _LINE + _BOTTOM
        self._plot = _LOWEST
        self._ticks = self._unit.ticks(panel.at_most or self._highest() or 1.0)
        self.height = self._beside + _LOWEST

    def svg(self, x: float, y: float, height: float, clip: str) -> str:
        """Its elements, with the upper left corner at `x`, `y`. `clip`: an id of the document's that is free."""
        self._plot = height - self._beside
        parts = [
            f'<g transform="translate({_n(x)} {_n(y)})">',
            f'<rect class="panel" width="{_n(WIDTH)}" height="{_n(height)}" rx="3"/>',
            self._title(),
        ]
        if any(line.last is not None for line in self._lines):
            parts += [*self._axes(), *self._graph(clip), *self._names()]
        else:
            parts.append(f'<text class="none" x="{_n(WIDTH / 2)}" y="{_n(_TOP + self._plot / 2)}">{NO_DATA}</text>')
        return "\n".join([*parts, "</g>"])

    def _title(self) -> str:
        room = WIDTH - 2 * MARGIN
        wide = width(self._panel.title, 1.1 * _TITLE)  # bold letters are wider
        smaller = f' style="font-size:{_n(_TITLE * room / wide)}px"' if wide > room else ""
        return f'<text class="title" x="{_n(MARGIN)}" y="22"{smaller}>{_text(self._panel.title)}</text>'

    def _axes(self) -> Iterator[str]:
        for value, label in self._ticks:
            y = self._y(value)
            yield f'<path class="grid" d="M{_n(_LEFT)} {_n(y)}H{_n(WIDTH - _RIGHT)}"/>'
            yield f'<text class="tick" text-anchor="end" x="{_n(_LEFT - 6)}" y="{_n(y + 3.5)}">{_text(label)}</text>'
        for at, _ in self._run.phases[1:]:
            yield f'<path class="phase" d="M{_n(self._x(at))} {_n(_TOP)}v{_n(self._plot)}"/>'
        for seconds, label in minutes(self._run):
            x, anchor = self._x(seconds), "middle"
            if x > WIDTH - _RIGHT - 8:  # the last one would stand over the panel's edge
                x, anchor = x + 6, "end"
            yield f'<text class="tick" text-anchor="{anchor}" x="{_n(x)}" y="{_n(_TOP + self._plot + 15)}">{label}</text>'

    def _graph(self, clip: str) -> Iterator[str]:
        yield (
            f'<clipPath id="{clip}"><rect x="{_n(_LEFT)}" y="{_n(_TOP - 2)}" width="{_n(WIDTH - _RIGHT - _LEFT)}"'
            f' height="{_n(self._plot + 4)}"/></clipPath><g clip-path="url(#{clip})">'
        )
        below = [0.0] * self._run.points
        for line in self._lines:
            seen = tops = list(line.values)
            if self._panel.stacked:
                if line.silent:  # it would draw over the edge of the one below
                    continue
                tops = [None if value is None else value + base for value, base in zip(line.values, below, strict=True)]
                yield from self._areas(line, tops, below)
                seen = _drawn(line.values, tops)
                below = [base if top is None else top for top, base in zip(tops, below, strict=True)]
            yield from self._strokes(line, seen)
        yield "</g>"

    def _areas(self, line: Line, tops: Sequence[float | None], below: Sequence[float]) -> Iterator[str]:
        for part in stretches(tops):
            there = [self._point(place, tops[place] or 0.0) for place in part]
            back = [self._point(place, below[place]) for place in reversed(part)]
            yield f'<path fill="{line.colour}" fill-opacity=".3" d="M{"L".join(there + back)}Z"/>'

    def _strokes(self, line: Line, tops: Sequence[float | None]) -> Iterator[str]:
        for part in stretches(tops):
            points = [self._point(place, tops[place] or 0.0) for place in part]
            if len(points) == 1:  # between two gaps: a line would have no length
                x, y = points[0].split()
                yield f'<circle cx="{x}" cy="{y}" r="1.6" fill="{line.colour}"/>'
            else:
                yield f'<path class="line" stroke="{line.colour}" d="M{"L".join(points)}"/>'

    def _names(self) -> Iterator[str]:
        top = _TOP + self._plot + _AXIS + 12.0
        for entry in self._legend:
            y = top + entry.line * _LINE
            if not entry.colour:
                yield f'<text class="rest" x="{_n(entry.x)}" y="{_n(y)}">{_text(entry.name)}</text>'
                continue
            yield f'<path class="key" stroke="{entry.colour}" d="M{_n(entry.x)} {_n(y - 4)}h10"/>'
            value = f'<tspan class="value" dx="5">{_text(entry.value)}</tspan>'
            yield f'<text class="name" x="{_n(entry.x + 15)}" y="{_n(y)}">{_text(entry.name)}{value}</text>'

    def _highest(self) -> float:
        if not self._panel.stacked:
            return max((0.0, *(value for line in self._lines for value in line.values if value is not None)))
        columns = zip(*(line.values for line in self._lines), strict=True)
        return max((sum(value or 0.0 for value in column) for column in columns), default=0.0)

    def _point(self, place: int, value: float) -> str:
        return f"{_n(self._x(place * self._run.step))} {_n(self._y(value))}"

    def _x(self, seconds: float) -> float:
        return _LEFT + (WIDTH - _RIGHT - _LEFT) * seconds / (self._run.step * (self._run.points - 1))

    def _y(self, value: float) -> float:
        return _TOP + self._plot * (1 - value / self._ticks[-1][0])


def _drawn(own: Sequence[float | None], tops: Sequence[float | None]) -> list[float | None]:
    """Upper edges of a layer, but where it has no height for a while: there it would paint over the layer below."""
    return [
        None if all(value in {None, 0} for value in own[max(0, place - 1) : place + 2]) else top for place, top in enumerate(tops)
    ]


def stretches(values: Sequence[float | None]) -> Iterator[list[int]]:
    """Places that have a value and stand side by side."""
    part: list[int] = []
    for place, value in enumerate(values):
        if value is not None:
            part.append(place)
        elif part:
            yield part
            part = []
    if part:
        yield part


def minutes(run: Run) -> list[tuple[float, str]]:
    """Where the axis has a label: every half minute of a short run, else as many as there is room for."""
    seconds = run.step * (run.points - 1)
    every = next((step for step in (10, 30, 60, 120, 300, 600) if seconds / step <= 6), 3600)
    return [(float(at), f"{at // 60}:{at % 60:02}") for at in range(0, int(seconds) + 1, every)]


def _text(text: str) -> str:
    """Labels may hold anything; XML takes no control characters, not even escaped."""
    return escape("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text), quote=True)


def _n(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
