"""Quotas as tables and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from aligner_svc.cli.quotas.access import Usage
from aligner_svc.cli.tables import plain_table, print_fitted, printable
from interceptors.quota.stores.base import Bucket

_PERIODS = (("second", 1.0), ("minute", 60.0), ("day", 86_400.0))
_UNITS = (("d", 86_400), ("h", 3600), ("min", 60))


def as_object(usage: Usage) -> dict[str, Any]:
    """For JSON. Rates are units per second; `full_in` is in seconds, 0 if full."""
    quota = usage.quota
    return {
        "principal": usage.subject,
        "class": quota.name,
        "set_at_run_time": usage.overridden,
        "priority": quota.priority,
        "used": round(usage.max_used, 6),
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


def print_table(usages: Sequence[Usage]) -> None:
    """Print one line per principal."""
    table = plain_table("principal", "class", "used", "most of", "calls", fold={"principal"}, right={"used", "calls"})
    for usage in usages:
        calls, used = usage.quota.calls, usage.used
        table.add_row(
            printable(usage.subject),
            usage.quota.name + (" (set)" if usage.overridden else ""),
            Text(f"{usage.max_used:.0%}", style=_colour(usage.max_used)),
            max(used, key=lambda name: used[name]) if usage.max_used else "",
            "" if calls is None else f"{calls.limit - usage.left[calls.name]:.0f} of {calls.limit}",
        )
    print_fitted(Console(highlight=False), table)


def print_one(usage: Usage) -> None:
    """Print one line per quota."""
    quota, used = usage.quota, usage.used
    console = Console(highlight=False)
    overridden = ", set at run time" if usage.overridden else ""
    head = printable(f"{usage.subject}: class {quota.name}{overridden}, priority {quota.priority}")
    console.print(head, style="bold", soft_wrap=True)
    if not usage.left:
        console.print("the class has no limits")
        return
    table = plain_table("quota", "left", "of", "refills", fold={"refills"}, right={"left", "of"})
    for bucket in quota.buckets:
        left = usage.left[bucket.name]
        shown = Text(_amount(left), style=_colour(used[bucket.name]))
        table.add_row(bucket.name, shown, _amount(bucket.burst), _refills(bucket, left))
    for slots in quota.slots(stream=True):
        left = usage.left[slots.name]
        shown = Text(f"{left:.0f}", style=_colour(used[slots.name]))
        table.add_row(slots.name, shown, str(slots.limit), f"as calls end; {slots.limit - left:.0f} in flight")
    print_fitted(console, table)


def print_overrides(given: Mapping[str, str]) -> None:
    """Print one line per name or pattern."""
    table = plain_table("principal", "class", fold={"principal", "class"})
    for name, target in given.items():
        table.add_row(printable(name), printable(target))
    print_fitted(Console(highlight=False), table)


def _refills(bucket: Bucket, left: float) -> str:
    """The rate, and when the bucket is out of debt or full."""
    # Rates are configured per second, per minute or per day, as the quota's name says.
    period, seconds = next((one for one in _PERIODS if bucket.name.endswith(one[0])), _PERIODS[0])
    rate = f"{_amount(bucket.rate * seconds)} a {period}"
    if left < 0:
        return f"{rate}; in debt for {_time(-left / bucket.rate)}"
    full_in = _full_in(bucket, left)
    return rate if full_in <= 0 else f"{rate}; full in {_time(full_in)}"


def _full_in(bucket: Bucket, left: float) -> float:
    return max(0.0, (bucket.burst - left) / bucket.rate)


def _amount(units: float) -> str:
    return f"{units:,.0f}" if abs(units) >= 1000 else f"{units:.4g}"


def _time(seconds: float) -> str:
    return next((f"{seconds / length:.3g} {unit}" for unit, length in _UNITS if seconds >= 2 * length), f"{seconds:.3g} s")


def _colour(used: float) -> str:
    return "red" if used >= 0.95 else "yellow" if used >= 0.7 else ""
