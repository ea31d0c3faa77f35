"""`aligner audit`."""

# ruff: noqa: PLC0415 - `aligner --help` must not wait for grpc, numpy and pydantic

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligner_svc.cli.failures import USAGE, Failure, from_settings, reported, warn

if TYPE_CHECKING:
    from aligner_svc.telemetry.audit.report import Count, Entry, Network, Summary

STDIN = Path("-")
_ROWS = 50
_TOP = 20


class AuditFormat(StrEnum):
    """How events are shown."""

    TABLE = "table"
    JSON = "json"


def audit(  # noqa: PLR0917 - typer makes flags of them; nobody gives them by position
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE|-]", help="An audit log, - for stdin. Default: the settings' own.")
    ] = None,
    event: Annotated[list[str] | None, typer.Option(metavar="NAME", help="This event; may be repeated, as all of these.")] = None,
    check: Annotated[list[str] | None, typer.Option(metavar="NAME", help="This failed check.")] = None,
    principal: Annotated[list[str] | None, typer.Option(metavar="NAME", help="This caller; * stands for any text.")] = None,
    peer: Annotated[list[str] | None, typer.Option(metavar="ADDRESS", help="This address or network (192.0.2.0/24).")] = None,
    method: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="This method, /package.Service/Method; * stands for any text.")
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="From then on: RFC 3339, or 30m, 24h, 7d ago.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Before then.")] = None,
    rotated: Annotated[bool, typer.Option("--all", help="With the rotated files beside it: FILE.1, FILE.2.gz, ...")] = False,
    summary: Annotated[bool, typer.Option("--summary", help="Who failed, from where and how often.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, metavar="N", help=f"The last N events (table: {_ROWS}, json: all), the top {_TOP}."),
    ] = None,
    output_format: Annotated[
        AuditFormat | None, typer.Option("--format", "-f", help="Default: table on a terminal, json elsewhere.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML settings; default aligner.toml, if there.")] = None,
) -> None:
    """Show security events: refused calls, changes of keys, certificates and policy.

    Exit codes: 0 done, if with nothing found; 1 the log cannot be read; 2 wrong usage or settings.
    """
    with reported():
        from aligner_svc.telemetry.audit.report import AuditReading, Selection, summarise

        now = datetime.now(UTC)
        selection = Selection(
            events=frozenset(map(_event, event or ())),
            checks=frozenset(check or ()),
            principals=tuple(principal or ()),
            methods=tuple(method or ()),
            peers=tuple(map(_network, peer or ())),
            since=_moment("--since", since, now),
            until=_moment("--until", until, now),
        )
        reading = AuditReading(_files(file, rotated, config))
        entries = selection.filter(reading)
        as_table = (output_format or _default_format()) is AuditFormat.TABLE
        if summary:
            _show_summary(summarise(entries), limit or _TOP, as_table)
        elif as_table:
            from aligner_svc.cli.audit.tables import print_events

            print_events(deque(entries, maxlen=limit or _ROWS))
        else:
            _pass_through(deque(entries, maxlen=limit) if limit else entries)
        if reading.unreadable:
            warn(f"{reading.unreadable} lines are not events and were left out")


def _default_format() -> AuditFormat:
    return AuditFormat.TABLE if sys.stdout.isatty() else AuditFormat.JSON


def _event(name: str) -> str:
    """Raises Failure for what is none: that nothing is found would be read as "nothing happened"."""
    import difflib

    from aligner_svc.telemetry.audit.log import DROPPED
    from interceptors.calls.security_event import Event

    known = [*Event, DROPPED]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise Failure("--event: no such event", why=name, hint=hint, exit_code=USAGE)
    return name


def _moment(flag: str, text: str | None, now: datetime) -> datetime | None:
    from aligner_svc.telemetry.audit.report import moment

    try:
        return None if text is None else moment(text, now)
    except ValueError:
        hint = "write 2026-01-31T12:00:00Z, or 30m, 24h, 7d for so long ago"
        raise Failure(f"{flag}: no such time", why=str(text), hint=hint, exit_code=USAGE) from None


def _network(text: str) -> Network:
    from aligner_svc.telemetry.audit.report import network

    try:
        return network(text)
    except ValueError:
        hint = "write an address without a port, 192.0.2.7 or 2001:db8::7, or a network, 192.0.2.0/24"
        raise Failure("--peer: no address", why=text, hint=hint, exit_code=USAGE) from None


def _files(file: Path | None, rotated: bool, config: Path | None) -> list[Path | None]:
    if file == STDIN:
        if rotated:
            raise Failure("--all and - exclude each other", hint="name a file", exit_code=USAGE)
        return [None]
    found = file or _configured(config)
    if not rotated:
        return [found]
    from aligner_svc.telemetry.audit.report import with_rotated

    return [*with_rotated(found)]


def _configured(config: Path | None) -> Path:
    if config is not None:
        os.environ["ALIGNER_CONFIG"] = str(config)
    from aligner_svc.config import Settings
    from aligner_svc.config.report import SettingsProblem, load

    try:
        found = load(Settings).settings.audit.file
    except SettingsProblem as problem:
        raise from_settings(problem) from None
    if found is None:
        why = "audit.file is not set: the server writes events to its stdout"
        raise Failure(
            "which audit log?", why=why, hint="name a file, or pipe the server's output into `aligner audit -`", exit_code=USAGE
        )
    return found


def _show_summary(summary: Summary, most: int, as_table: bool) -> None:
    if as_table:
        from aligner_svc.cli.audit.tables import print_summary

        print_summary(summary, most)
    else:
        import json

        typer.echo(json.dumps(_as_json(summary, most), indent=2))


def _as_json(summary: Summary, most: int) -> dict[str, object]:
    """Total and, by kind, the `most` frequent values; times in RFC 3339, `uncounted` the events beyond what is counted."""
    from aligner_svc.telemetry.audit.report import KINDS

    def count(found: Count) -> dict[str, object]:
        return {"count": found.times, "first": found.first.isoformat(), "last": found.last.isoformat()}

    total = count(summary.total) if summary.total is not None else {"count": 0, "first": None, "last": None}
    by = {
        kind: {
            "values": [{kind: value[0], **count(found)} for value, found in tally.top(most)],
            "distinct": len(tally.counts),
            "uncounted": tally.uncounted,
        }
        for kind, tally in summary.by.items()
    }
    together = [{**dict(zip(KINDS, value, strict=True)), **count(found)} for value, found in summary.together.top(most)]
    return {
        **total,
        "by": by,
        "together": {
            "values": together,
            "distinct": len(summary.together.counts),
            "uncounted": summary.together.uncounted,
        },
    }


def _pass_through(entries: Iterable[Entry]) -> None:
    """One line each, escaped anew: a file may hold raw what drives a terminal."""
    import json

    lines: list[str] = []
    for entry in entries:
        lines.append(json.dumps(entry.fields))
        if len(lines) == 1000:
            typer.echo("\n".join(lines))
            lines.clear()
    if lines:
        typer.echo("\n".join(lines))
