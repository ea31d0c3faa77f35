"""Names, colours and last values of a panel's series, and where they stand below its graph."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from tools.panels.recorded import Series
from tools.panels.units import Unit

WIDTH, MARGIN = 320.0, 14.0
"""Of a panel, and what is left free at its sides; in pixels."""
_FEW = 3
"""Series that stayed at zero and are named all the same."""

# Grafana's own, in its order.
COLOURS = (
    *("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0"),
    *("#37872d", "#fade2a", "#447ebc", "#c15c17", "#e02f44", "#1f60c4", "#8f3bb8", "#5195ce"),
)
_LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Line:
    """A series with its name and colour."""

    name: str
    colour: str
    values: Sequence[float | None]

    @property
    def last(self) -> float | None:
        """The last value there was."""
        return next((value for value in reversed(self.values) if value is not None), None)

    @property
    def silent(self) -> bool:
        """It says nothing but zero."""
        return all(value in {None, 0} for value in self.values)


@dataclass(frozen=True, slots=True)
class Entry:
    """A place in the legend; without a colour it is a remark."""

    x: float
    line: int
    colour: str
    name: str
    value: str


def legend_name(legend: str, labels: dict[str, str]) -> str:
    """`{{label}}` filled in as Grafana does it: with nothing where there is no such label."""
    return _LABEL.sub(lambda found: labels.get(found[1], ""), legend)


def lines(found: Sequence[tuple[str, Sequence[Series]]]) -> list[Line]:
    """Of all queries of a panel, each with the name its legend gives it."""
    named = [(legend_name(legend, series.labels), series.values) for legend, many in found for series in many]
    return [Line(name, COLOURS[place % len(COLOURS)], values) for place, (name, values) in enumerate(named)]


def coloured(found: Sequence[Line]) -> list[Line]:
    """Colours go to those that say something: with twenty series of which three are not zero, three colours are enough."""
    loud = accumulate((not line.silent for line in found), initial=0)
    if sum(line.silent for line in found) <= _FEW:
        return list(found)
    return [
        line if line.silent else Line(line.name, COLOURS[place % len(COLOURS)], line.values)
        for line, place in zip(found, loud, strict=False)
    ]


def legend(found: Sequence[Line], unit: Unit) -> list[Entry]:
    """From left to right, as many as fit in a line. Beyond a few, those that stayed at zero are counted and not named."""
    there = [line for line in found if line.last is not None]
    silent = [line for line in there if line.silent]
    named = [line for line in there if not line.silent] if len(silent) > _FEW else there
    texts = [(line.colour, line.name, unit.text(line.last or 0.0)) for line in named]
    if len(silent) > _FEW:
        texts.append(("", f"{len(silent)} that stayed at 0" if not named else f"and {len(silent)} that stayed at 0", ""))
    entries: list[Entry] = []
    x, line_number = MARGIN, 0
    for colour, name, value in texts:
        room = WIDTH - 2 * MARGIN - 20 - width(value)
        shown = _cut(name, room)
        wide = (15 if colour else 0) + width(shown) + (5 + width(value) if value else 0)
        if x > MARGIN and x + wide > WIDTH - MARGIN:
            x, line_number = MARGIN, line_number + 1
        entries.append(Entry(x, line_number, colour, shown, value))
        x += wide + 14
    return entries


def width(text: str, size: float = 11.0) -> float:
    """Roughly what it takes in a sans-serif, rather too much than too little: the reader's font is not known."""
    wide = {**dict.fromkeys("ijl.,:;|!'()[] ", 0.36), **dict.fromkeys("mwMW%@", 0.95)}
    return size * sum(wide.get(letter, 0.7 if letter.isupper() else 0.6) for letter in text)


def _cut(text: str, room: float) -> str:
    """Shortened to `room`, with an ellipsis."""
    if width(text) <= room:
        return text
    while text and width(text + "…") > room:
        text = text[:-1]
    return text.rstrip() + "…"
