"""What stands around a word: "5" is another word after "March" and before "million"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Context:
    """The folded words around one of them, and the characters between.

    `gaps[i]` stands before `words[i]`; the last one behind the last word.
    """

    words: Sequence[str]
    gaps: Sequence[str]
    index: int
    shouted: bool = False
    """The whole transcript is in capitals, so that they tell nothing."""

    @property
    def before(self) -> str:
        """The word before, if only blanks lie between, else ""."""
        return self.words[self.index - 1] if self.index and self.gaps[self.index].isspace() else ""

    @property
    def after(self) -> str:
        """The word behind, if only blanks lie between, else ""."""
        return self.at(1) if self.index + 1 < len(self.words) and self.gaps[self.index + 1].isspace() else ""

    def at(self, offset: int) -> str:
        """The word `offset` places on, whatever lies between, or ""."""
        place = self.index + offset
        return self.words[place] if 0 <= place < len(self.words) else ""


ALONE = Context((), (" ",), 0)
"""Nothing around, or nothing that matters."""
