"""A text with some ranges replaced, and where each of its characters was."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on


class Edit(NamedTuple):
    """`original[start:end]` becomes `text`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Rewrite:
    """`text` is `original` with the edits made."""

    original: str
    text: str
    _edges: tuple[int, ...] = ()
    """In `text`, start and end in turn of each replacement; all characters between are the same as in `original`."""
    _original_edges: tuple[int, ...] = ()
    """The same in `original`."""

    @classmethod
    def of(cls, original: str, edits: Iterable[Edit]) -> Self:
        """`edits` in order and apart. Linear in the length."""
        parts: list[str] = []
        edges: list[int] = []
        original_edges: list[int] = []
        here = at = 0  # how far, in the text and in the original
        for start, end, text in edits:
            parts += original[at:start], text
            here += start - at
            edges += here, here + len(text)
            original_edges += start, end
            here, at = here + len(text), end
        return cls(original, "".join((*parts, original[at:])), tuple(edges), tuple(original_edges))

    @property
    def changed(self) -> bool:
        """Whether there is any edit."""
        return bool(self._edges)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The range of `original` that `text[start:end]` comes from, in whole replacements."""
        first = self._place(start, is_end=0)
        return first, (self._place(end - 1, is_end=1) if end > start else first)

    def between(self, start: int, end: int) -> str:
        """What became of `original[start:end]`, the text between two words: replacements at its edges belong to it."""
        before, after = bisect_left(self._original_edges, start), bisect_right(self._original_edges, end)
        first = self._edges[before] if before % 2 else start + self._shift(before)
        return self.text[first : self._edges[after - 1] if after % 2 else end + self._shift(after)]

    def _shift(self, edges: int) -> int:
        """How much further a character in `text` is than in `original`, after so many edges."""
        return self._edges[edges - 1] - self._original_edges[edges - 1] if edges else 0

    def _place(self, at: int, is_end: int) -> int:
        """Where in `original` the character of `text` starts (`is_end` 0) or ends (1), or the range that was replaced by it."""
        before = bisect_right(self._edges, at)  # edges up to here; an odd number: within a replacement
        return self._original_edges[before - 1 + is_end] if before % 2 else at + is_end - self._shift(before)
