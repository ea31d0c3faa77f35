"""Tables for people, and text from elsewhere made safe for a terminal."""

from __future__ import annotations

from collections.abc import Container

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Column, Table
from rich.text import Text

_FOLDED = 12
"""Columns of the terminal below which text that wraps is not readable."""
_GAP = 2
_TWO_COLUMNS = 76
"""Columns of the terminal below which panels are not put side by side."""


def plain_table(*columns: str, fold: Container[str] = (), right: Container[str] = (), title: str | None = None) -> Table:
    """A table without borders. Only the columns in `fold` wrap; those in `right` are aligned to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for name in columns:
        overflow, min_width = ("fold", len(name)) if name in fold else ("ellipsis", None)
        table.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=name not in fold,
            overflow=overflow,  # type: ignore[arg-type]
            min_width=min_width,
        )
    return table


def print_fitted(console: Console, table: Table, *, drop: Container[str] = ()) -> None:
    """Print a `plain_table`. Where the terminal is too narrow: without the columns in `drop`, else with a line for each cell.

    A cell is never cut off: half of an ID or of a time is worse than a long list.
    """
    if _width(table.columns) > console.width:
        table = _without(table, drop)
    if _width(table.columns) <= console.width:
        console.print(table)
        return
    if table.title:
        console.print(table.title)
    for row in zip(*(column.cells for column in table.columns), strict=True):
        for column, cell in zip(table.columns, row, strict=True):
            text = cell if isinstance(cell, Text) else Text(str(cell))
            if text.plain.strip():
                console.print(Text.assemble((f"{column.header}: ", "dim"), text), soft_wrap=True)
        console.print()


def _without(table: Table, drop: Container[str]) -> Table:
    kept = [column for column in table.columns if column.header not in drop]
    fold = {str(column.header) for column in kept if not column.no_wrap}
    right = {str(column.header) for column in kept if column.justify == "right"}
    narrow = plain_table(*(str(column.header) for column in kept), fold=fold, right=right)
    narrow.title, narrow.show_header = table.title, table.show_header
    for row, cells in zip(table.rows, zip(*(column.cells for column in kept), strict=True), strict=True):
        narrow.add_row(*cells, style=row.style)
    return narrow


def _width(columns: list[Column]) -> int:
    """Columns of the terminal that a table takes at least."""
    return sum(map(_least, columns)) + _GAP * (len(columns) - 1)


def _least(column: Column) -> int:
    cells = [cell_len(cell.plain if isinstance(cell, Text) else str(cell)) for cell in (column.header, *column.cells)]
    return max(cells) if column.no_wrap else max(cells[0], min(max(cells), _FOLDED))


class SideBySide:
    """An even number of panels, two by two; on a narrow terminal one below the other."""

    def __init__(self, *panels: RenderableType) -> None:
        self._panels = panels

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width < _TWO_COLUMNS:
            yield from self._panels
            return
        grid = Table.grid(expand=True, padding=(0, 1))
        grid.add_column(ratio=1)
        grid.add_column(ratio=1)
        for left, right in zip(self._panels[::2], self._panels[1::2], strict=True):
            grid.add_row(left, right)
        yield grid


def printable(text: str) -> Text:
    """Text from elsewhere for a terminal: no markup, and no escape sequences that could control it."""
    return Text("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text))
