"""Tables for people, and text from elsewhere made safe for a terminal."""

from __future__ import annotations

from collections.abc import Container

from rich.table import Table
from rich.text import Text


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


def printable(text: str) -> Text:
    """Text from elsewhere for a terminal: no markup, and no escape sequences that could control it."""
    return Text("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text))
