"""Labels with a bound: every value is a series that is kept for as long as the process lives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

OTHER: Final = "other"
"""Stands for all values for which there was no room."""


class Bounded:
    """The first `most` values as they are; OTHER for what comes after them."""

    def __init__(self, most: int, known: Iterable[str] = ()) -> None:
        """`known` values have their place already."""
        self._most = most
        self._known = set(known)

    def __call__(self, value: str) -> str:
        if value in self._known:
            return value
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(value)
        return value
