"""What has changed between two versions of rules, for one line of a log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_MAX_SUMMARY = 400
"""Characters."""


def changed_rules(name: str, new: Mapping[str, str], old: Mapping[str, str]) -> list[str]:
    """As in "principals: +key:1 (align), -key:2 (admin), key:3 (admin -> align)"; an empty list without changes."""
    changes = []
    for key in sorted({*new, *old}):
        if key not in old:
            changes.append(f"+{key} ({new[key]})")
        elif key not in new:
            changes.append(f"-{key} ({old[key]})")
        elif old[key] != new[key]:
            changes.append(f"{key} ({old[key]} -> {new[key]})")
    return [f"{name}: {', '.join(changes)}"] if changes else []


def summary(changes: Iterable[str], unchanged: str) -> str:
    """The changes, cut to 400 characters; `unchanged` if there are none."""
    text = "; ".join(changes) or unchanged
    return text if len(text) <= _MAX_SUMMARY else f"{text[: _MAX_SUMMARY - 4]} ..."
