"""`aligner audit`."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from aligner_svc.cli.failures import reported, warn
from aligner_svc.cli.options import ConfigFile, Format, wants_json

_ROWS = 50
_TOP = 20


def audit(  # noqa: PLR0917 - typer makes an option of each
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE|-]", help="An audit log; - reads stdin. Default: the one in the settings.")
    ] = None,
    event: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this event. All filters but times may be repeated.")
    ] = None,
    check: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this failed check.")] = None,
    principal: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this principal; * matches any text.")] = None,
    peer: Annotated[
        list[str] | None, typer.Option(metavar="ADDRESS", help="Only this address or network, e.g. 192.0.2.0/24.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this method, /package.Service/Method; * matches any text.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only events since: an RFC 3339 time, or 30m, 24h, 7d for a time ago.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Only events before this time.")] = None,
    rotated: Annotated[bool, typer.Option("--all", help="Also read the rotated files: FILE.1, FILE.2.gz, ...")] = False,
    summary: Annotated[bool, typer.Option("--summary", help="Count who failed, from where and how often.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1_000_000,
            metavar="N",
            help=f"The last N events (default: {_ROWS} for table, all for json), or the top N of the summary (default: {_TOP}).",
        ),
    ] = None,
    output_format: Format = None,
    config: ConfigFile = None,
) -> None:
    """Show security events: refused calls and changes of keys, quotas, certificates and policy.

    Exit codes: 0 success, also if no event was found; 1 the log cannot be read; 2 wrong usage or settings.
    """
    with reported():
        from aligner_svc.cli.audit import arguments, shown
        from aligner_svc.telemetry.audit.report import AuditReading, Selection, summarise

        now = datetime.now(UTC)
        selection = Selection(
            events=frozenset(map(arguments.event, event or ())),
            checks=frozenset(check or ()),
            principals=tuple(principal or ()),
            methods=tuple(method or ()),
            peers=tuple(map(arguments.network, peer or ())),
            since=arguments.moment("--since", since, now),
            until=arguments.moment("--until", until, now),
        )
        reading = AuditReading(arguments.files(file, rotated, config))
        entries = selection.filter(reading)
        as_json = wants_json(output_format)
        if summary:
            print_summary = shown.print_summary_json if as_json else shown.print_summary
            print_summary(summarise(entries), limit or _TOP)
        elif as_json:
            shown.print_events_json(deque(entries, maxlen=limit) if limit else entries)
        else:
            shown.print_events(deque(entries, maxlen=limit or _ROWS))
        if reading.unreadable:
            warn(f"{reading.unreadable} lines are not events and were skipped")
