"""Keys as a person or a program sees them. Never with the secret, but for a new one."""

# ruff: noqa: PLC0415 - `aligner --help` must not wait for rich

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from interceptors.auth.api_keys.store import KeyRecord

_COLOUR = {"live": "green", "rotated": "yellow", "expired": "dim", "revoked": "red"}


def state(record: KeyRecord, now: float) -> str:
    """live; rotated: live until it expires, and replaced; expired; revoked."""
    if record.revoked is not None:
        return "revoked"
    if not record.is_live(now):
        return "expired"
    return "rotated" if record.replaced_by is not None else "live"


def as_object(record: KeyRecord, now: float) -> dict[str, Any]:
    """For JSON: times in RFC 3339, null where there is none."""
    return {
        "id": record.id,
        "state": state(record, now),
        "label": record.label,
        "scopes": sorted(record.scopes),
        "created": _iso(record.created),
        "expires": _iso(record.expires),
        "revoked": _iso(record.revoked),
        "last_used": _iso(record.last_used),
        "replaced_by": record.replaced_by,
    }


def print_json(value: object) -> None:
    """To stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False).encode())


def print_table(records: Sequence[KeyRecord], now: float) -> None:
    """To stdout, one line a key."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from aligner_svc.cli.alignment.table import printable

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("id", "state"):
        table.add_column(name, no_wrap=True)
    table.add_column("label", overflow="fold")
    table.add_column("scopes", overflow="fold", min_width=len("scopes"))
    for name in ("created", "expires", "last used"):
        table.add_column(name, no_wrap=True)
    for record in records:
        is_now = state(record, now)
        table.add_row(
            record.id,
            Text(is_now, style=_COLOUR[is_now]),
            printable(record.label),
            printable(" ".join(sorted(record.scopes))),
            _minute(record.created)[: len("2026-01-31")],
            _minute(record.expires) or "never",
            _minute(record.last_used) or "never",
        )
    Console(highlight=False).print(table)


def print_one(record: KeyRecord, now: float) -> None:
    """To stdout, one line a property."""
    from rich.console import Console
    from rich.text import Text

    from aligner_svc.cli.alignment.table import printable

    console = Console(highlight=False)
    for name, value in as_object(record, now).items():
        shown = " ".join(value) if isinstance(value, list) else value
        if shown is not None:
            line = Text(f"{name.replace('_', ' '):12}", style="bold") + printable(shown)
            console.print(line, soft_wrap=True)


def until(expires: float | None) -> str:
    """For a sentence."""
    return "does not expire" if expires is None else f"expires {_minute(expires)} UTC"


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _minute(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
