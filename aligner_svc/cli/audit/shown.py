"""Security events and their summary as tables and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice

import typer
from rich.console import Console
from rich.text import Text

from aligner_svc.cli.tables import plain_table, print_fitted, printable
from aligner_svc.telemetry.audit.report import KINDS, Count, Entry, Summary, Tally, host_of

_TITLES = {"event": "Events", "check": "Failed checks", "principal": "Principals", "peer": "Addresses"}
_WIDTH = 240
"""Columns when stdout is not a terminal: wide enough for one line per event, so that grep finds whole ones."""


def print_events_json(entries: Iterable[Entry]) -> None:
    """Print one line per event, escaped again: a log may contain raw text that controls a terminal."""
    entries = iter(entries)
    while lines := [json.dumps(entry.fields) for entry in islice(entries, 1000)]:
        typer.echo("\n".join(lines))


def print_events(entries: Iterable[Entry]) -> None:
    """Print one row per event, without the user agent."""
    columns = ("event", "check", "principal", "from", "method", "request", "detail")
    table = plain_table("time (UTC)", *columns, fold=columns)
    for entry in entries:
        names = ("principal", "peer", "method", "request_id", "detail")
        principal, peer, method, request, detail = (entry.text(name) for name in names)
        count = entry.text("count")
        cells = (
            entry.text("check"),
            principal,
            host_of(peer),
            # The last part of the service is enough to distinguish it from health and reflection.
            method.rpartition(".")[2] or method,
            request,
            detail or (f"{count} events" if count else ""),
        )
        table.add_row(_time(entry.time), Text(printable(entry.text("event")).plain, style="bold"), *map(printable, cells))
    if table.row_count:
        print_fitted(_console(), table)
    else:
        _console().print("no events")


def print_summary_json(summary: Summary, limit: int) -> None:
    """Print the total and, by kind, the `limit` most frequent values. Times in RFC 3339."""

    def count(found: Count) -> dict[str, object]:
        return {"count": found.times, "first": found.first.isoformat(), "last": found.last.isoformat()}

    def tally(found: Tally, kinds: tuple[str, ...]) -> dict[str, object]:
        return {
            "values": [{**dict(zip(kinds, values, strict=True)), **count(one)} for values, one in found.top(limit)],
            "distinct": len(found.counts),
            "uncounted": found.uncounted,
        }

    total = count(summary.total) if summary.total is not None else {"count": 0, "first": None, "last": None}
    by = {kind: tally(found, (kind,)) for kind, found in summary.by.items()}
    typer.echo(json.dumps({**total, "by": by, "together": tally(summary.together, KINDS)}, indent=2))


def print_summary(summary: Summary, limit: int) -> None:
    """Print the `limit` most frequent values of each kind, then who failed at what from where."""
    console = _console()
    total = summary.total
    if total is None:
        console.print("no events")
        return
    console.print(f"{total.times} events, {_time(total.first)} to {_time(total.last)} (UTC)", style="bold", soft_wrap=True)
    for kind in KINDS:
        _print_tally(console, _TITLES[kind], (kind,), summary.by[kind], limit)
    _print_tally(console, "Who failed at what, from where", KINDS, summary.together, limit)


def _print_tally(console: Console, title: str, kinds: tuple[str, ...], tally: Tally, limit: int) -> None:
    if not tally.counts:
        return
    columns = ["from" if kind == "peer" else kind for kind in kinds]
    table = plain_table("times", *columns, "first", "last", fold=columns, right={"times"})
    for values, count in tally.top(limit):
        table.add_row(str(count.times), *map(printable, values), _time(count.first), _time(count.last))
    console.print()
    console.print(title, style="bold")
    print_fitted(console, table)
    beyond = len(tally.counts) - limit
    if beyond > 0:
        console.print(f"and {beyond} more", style="dim")
    if tally.uncounted:
        console.print(f"and {tally.uncounted} events with values beyond the first {len(tally.counts)}", style="yellow")


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _console() -> Console:
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_WIDTH)
