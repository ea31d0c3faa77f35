"""Security events and their summary as tables for a person."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aligner_svc.cli.alignment.table import printable
from aligner_svc.telemetry.audit.report import KINDS, Count, Entry, Summary, Tally, host_of

_TITLES = {"event": "Events", "check": "Failed checks", "principal": "Callers", "peer": "Addresses"}
_WIDTH = 240
"""Where no terminal says how wide it is: wide enough for one line an event, so that grep finds whole ones."""


def print_events(entries: Iterable[Entry]) -> None:
    """In the order they are given; what a column does not show (user agents) --format json does."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("time (UTC)", no_wrap=True)
    for name in ("event", "check", "principal", "from", "method", "request", "detail"):
        table.add_column(name, overflow="fold")
    found = False
    for entry in entries:
        found = True
        names = ("principal", "peer", "method", "request_id", "detail")
        principal, peer, method, request, detail = (entry.text(name) for name in names)
        count = entry.text("count")
        cells = (
            entry.text("check"),
            principal,
            host_of(peer),
            # The service is the same everywhere; its last part tells it from health and reflection.
            method.rpartition(".")[2] or method,
            request,
            detail or (f"{count} events" if count else ""),
        )
        table.add_row(_time(entry.time), Text(printable(entry.text("event")).plain, style="bold"), *map(printable, cells))
    console = _console()
    if found:
        console.print(table)
    else:
        console.print("no events")


def print_summary(summary: Summary, most: int) -> None:
    """Each kind by itself, then who failed at what from where."""
    console = _console()
    if summary.total is None:
        console.print("no events")
        return
    total = summary.total
    console.print(f"{total.times} events, {_time(total.first)} to {_time(total.last)} (UTC)", style="bold", soft_wrap=True)
    for kind in KINDS:
        _print_tally(console, _TITLES[kind], (kind,), summary.by[kind], most)
    _print_tally(console, "Who failed at what, from where", KINDS, summary.together, most)


def _print_tally(console: Console, title: str, columns: tuple[str, ...], tally: Tally, most: int) -> None:
    if not tally.counts:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("times", justify="right", no_wrap=True)
    for name in columns:
        table.add_column("from" if name == "peer" else name, overflow="fold")
    table.add_column("first", no_wrap=True)
    table.add_column("last", no_wrap=True)
    for values, count in tally.top(most):
        table.add_row(*_row(values, count))
    console.print()
    console.print(title, style="bold")
    console.print(table)
    beyond = len(tally.counts) - most
    if beyond > 0:
        console.print(f"and {beyond} more", style="dim")
    if tally.uncounted:
        console.print(f"and {tally.uncounted} events of values beyond the first {len(tally.counts)}", style="yellow")


def _row(values: tuple[str, ...], count: Count) -> list[Text | str]:
    return [str(count.times), *map(printable, values), _time(count.first), _time(count.last)]


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _console() -> Console:
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_WIDTH)
