"""Bounded label values: each value is a series that is kept for as long as the process lives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

OTHER: Final = "other"
"""Stands for all values beyond the bound."""


class Bounded:
    """Returns the first `limit` different values as they are, and OTHER for all others."""

    def __init__(self, limit: int, known: Iterable[str] = ()) -> None:
        """`known`: values that count as seen."""
        self._limit = limit
        self._known = set(known)

    def __call__(self, value: str) -> str:
        if value in self._known:
            return value
        if len(self._known) >= self._limit:
            return OTHER
        self._known.add(value)
        return value
