"""The arguments of `aligner audit`: events, times, networks and files. All functions raise Failure for invalid ones."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from aligner_svc.cli.failures import USAGE, Failure, did_you_mean
from aligner_svc.cli.settings import load_settings
from aligner_svc.telemetry.audit import report
from aligner_svc.telemetry.audit.log import DROPPED
from interceptors.calls.security_event import Event

STDIN = Path("-")


def event(name: str) -> str:
    """The name of an event. Others are refused: an empty result would be read as "nothing happened"."""
    known = [*Event, DROPPED]
    if name not in known:
        raise Failure("--event: not an event", why=name, hint=did_you_mean(name, known), exit_code=USAGE)
    return name


def moment(flag: str, text: str | None, now: datetime) -> datetime | None:
    """The time in `text`, None if there is none."""
    try:
        return None if text is None else report.moment(text, now)
    except ValueError:
        hint = "write 2026-01-31T12:00:00Z, or 30m, 24h, 7d for a time ago"
        raise Failure(f"{flag}: not a time", why=str(text), hint=hint, exit_code=USAGE) from None


def network(text: str) -> report.Network:
    """An address or a network."""
    try:
        return report.network(text)
    except ValueError:
        hint = "write an address without a port, 192.0.2.7 or 2001:db8::7, or a network, 192.0.2.0/24"
        raise Failure("--peer: not an address", why=text, hint=hint, exit_code=USAGE) from None


def files(file: Path | None, rotated: bool, config: Path | None) -> list[Path | None]:
    """The files to read, the oldest first; None is stdin. Raises OSError as well."""
    if file == STDIN:
        if rotated:
            raise Failure("--all and - exclude each other", hint="give the name of a file", exit_code=USAGE)
        return [None]
    found = file or load_settings(config).settings.audit.file
    if found is None:
        raise Failure(
            "no audit log is configured",
            why="audit.file is not set: the server writes events to its stdout",
            hint="give the name of a file, or pipe the server's output into `aligner audit -`",
            exit_code=USAGE,
        )
    return [*report.with_rotated(found)] if rotated else [found]
