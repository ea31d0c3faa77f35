"""API keys as tables and JSON. A key's secret is not in its record and never shown here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from aligner_svc.cli.tables import plain_table, print_fitted, printable
from interceptors.auth.api_keys.store import KeyRecord

_COLOUR = {"live": "green", "rotated": "yellow", "expired": "dim", "revoked": "red"}


def state(record: KeyRecord, now: float) -> str:
    """live; rotated: replaced, and live until it expires; expired; revoked."""
    if record.revoked is not None:
        return "revoked"
    if not record.is_live(now):
        return "expired"
    return "rotated" if record.replaced_by is not None else "live"


def as_object(record: KeyRecord, now: float) -> dict[str, Any]:
    """For JSON. Times in RFC 3339, None if not set."""
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


def print_table(records: Sequence[KeyRecord], now: float) -> None:
    """Print one line per key."""
    table = plain_table("id", "state", "label", "scopes", "created", "expires", "last used", fold={"label", "scopes"})
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
    print_fitted(Console(highlight=False), table)


def print_one(record: KeyRecord, now: float) -> None:
    """Print one line per property."""
    console = Console(highlight=False)
    for name, value in as_object(record, now).items():
        shown = " ".join(value) if isinstance(value, list) else value
        if shown is not None:
            console.print(Text(f"{name.replace('_', ' '):12}", style="bold") + printable(shown), soft_wrap=True)


def until(expires: float | None) -> str:
    """When a key expires, as part of a sentence."""
    return "does not expire" if expires is None else f"expires {_minute(expires)} UTC"


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _minute(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
