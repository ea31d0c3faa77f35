"""The context of a word: "5" is read differently after "March" and before "million"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Context:
    """One of the folded words, and the characters between them: `gaps[i]` before `words[i]`, the last after all words."""

    words: Sequence[str]
    gaps: Sequence[str]
    index: int
    shouted: bool = False
    """The transcript is in capitals, which then mean nothing."""

    @property
    def before(self) -> str:
        """The word before, "" if there is more than blanks between."""
        return self.words[self.index - 1] if self.index and self.gaps[self.index].isspace() else ""

    @property
    def after(self) -> str:
        """The word after, "" if there is more than blanks between."""
        return self.at(1) if self.index + 1 < len(self.words) and self.gaps[self.index + 1].isspace() else ""

    def at(self, offset: int) -> str:
        """The word `offset` places further on, whatever is between; "" if there is none."""
        place = self.index + offset
        return self.words[place] if 0 <= place < len(self.words) else ""


ALONE = Context((), (" ",), 0)
"""No context."""
