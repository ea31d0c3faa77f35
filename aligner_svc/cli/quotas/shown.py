"""Quotas as a person or a program sees them."""

# ruff: noqa: PLC0415 - `aligner --help` must not wait for rich

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from aligner_svc.cli.quotas.access import Usage
    from interceptors.quota.stores.base import Bucket

_PERIODS = (("second", 1.0), ("minute", 60.0), ("day", 86_400.0))
_UNITS = (("d", 86_400), ("h", 3600), ("min", 60))


def as_object(usage: Usage) -> dict[str, Any]:
    """For JSON. Rates are units a second; `full_in` is seconds, 0 for what is full."""
    quota = usage.quota
    return {
        "principal": usage.subject,
        "class": quota.name,
        "set_at_run_time": usage.given,
        "priority": quota.priority,
        "used": round(usage.most, 6),
        "quotas": {
            bucket.name: {
                "rate": bucket.rate,
                "burst": bucket.burst,
                "left": round(usage.left[bucket.name], 6),
                "full_in": round(_full_in(bucket, usage.left[bucket.name]), 3),
            }
            for bucket in quota.buckets
        },
        "in_flight": {
            slots.name: {"most": slots.limit, "now": round(slots.limit - usage.left[slots.name])}
            for slots in quota.slots(stream=True)
        },
    }


def print_json(value: object) -> None:
    """To stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False).encode())


def print_table(usages: Sequence[Usage]) -> None:
    """To stdout, one line a caller."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from aligner_svc.cli.alignment.table import printable

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("caller", overflow="fold")
    table.add_column("class", no_wrap=True)
    table.add_column("used", justify="right", no_wrap=True)
    table.add_column("most of", no_wrap=True)
    table.add_column("calls", justify="right", no_wrap=True)
    for usage in usages:
        calls, used = usage.quota.calls, usage.used
        table.add_row(
            printable(usage.subject),
            usage.quota.name + (" (set)" if usage.given else ""),
            Text(f"{usage.most:.0%}", style=_colour(usage.most)),
            max(used, key=lambda name: used[name]) if usage.most else "",
            "" if calls is None else f"{calls.limit - usage.left[calls.name]:.0f} of {calls.limit}",
        )
    Console(highlight=False).print(table)


def print_one(usage: Usage) -> None:
    """To stdout, one line a quota."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from aligner_svc.cli.alignment.table import printable

    quota, used = usage.quota, usage.used
    console = Console(highlight=False)
    where = ", set at run time" if usage.given else ""
    console.print(
        printable(f"{usage.subject}: class {quota.name}{where}, priority {quota.priority}"), style="bold", soft_wrap=True
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("quota", no_wrap=True)
    for name in ("left", "of"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("refills")
    for bucket in quota.buckets:
        left = usage.left[bucket.name]
        shown = Text(_amount(left), style=_colour(used[bucket.name]))
        table.add_row(bucket.name, shown, _amount(bucket.burst), _refills(bucket, left))
    for slots in quota.slots(stream=True):
        left = usage.left[slots.name]
        table.add_row(
            slots.name,
            Text(f"{left:.0f}", style=_colour(used[slots.name])),
            str(slots.limit),
            f"as calls end; {slots.limit - left:.0f} in flight",
        )
    if usage.left:
        console.print(table)
    else:
        console.print("the class has no limits")


def print_classes(given: Mapping[str, str]) -> None:
    """To stdout, one line a name or pattern."""
    from rich.console import Console
    from rich.table import Table

    from aligner_svc.cli.alignment.table import printable

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("caller", overflow="fold")
    table.add_column("class", overflow="fold")
    for name, target in given.items():
        table.add_row(printable(name), printable(target))
    Console(highlight=False).print(table)


def _refills(bucket: Bucket, left: float) -> str:
    """For people, what a bucket's state means."""
    # Rates are given per second, per minute or per day; the quota's name says which.
    period, seconds = next((one for one in _PERIODS if bucket.name.endswith(one[0])), _PERIODS[0])
    told = f"{_amount(bucket.rate * seconds)} a {period}"
    if left < 0:
        return f"{told}; in debt for {_time(-left / bucket.rate)}"
    full_in = _full_in(bucket, left)
    return told if full_in <= 0 else f"{told}; full in {_time(full_in)}"


def _full_in(bucket: Bucket, left: float) -> float:
    return max(0.0, (bucket.burst - left) / bucket.rate)


def _amount(units: float) -> str:
    return f"{units:,.0f}" if abs(units) >= 1000 else f"{units:.4g}"


def _time(seconds: float) -> str:
    return next((f"{seconds / length:.3g} {unit}" for unit, length in _UNITS if seconds >= 2 * length), f"{seconds:.3g} s")


def _colour(used: float) -> str:
    return "red" if used >= 0.95 else "yellow" if used >= 0.7 else ""
