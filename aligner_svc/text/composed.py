"""Text in any normalisation form is taken, and read composed (NFC): an "e" and an accent, or Korean letters, as one character.

The models were trained on composed text; macOS file names and some keyboards come decomposed. Offsets stay those of the
text that was sent, and a word's text is what stands there.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

from aligner_svc.domain import Token
from aligner_svc.text.characters import check_marks

_MELTS, _CHANGES, _STAYS = "m", "c", "a"
# A cluster normalises by itself: it is cut before every character that cannot melt into the one before.
_CLUSTER = re.compile(f"[{_STAYS}{_CHANGES}]{_MELTS}++|{_MELTS}++|{_CHANGES}")


@dataclass(frozen=True, slots=True)
class Composed:
    """`text` is the NFC of `original`."""

    original: str
    text: str
    _ours: tuple[int, ...] = ()
    """Where in `text` each cluster begins and ends that is not the same in both, in turn; between them all characters are."""
    _theirs: tuple[int, ...] = ()
    """The same in `original`."""

    @classmethod
    def of(cls, original: str) -> Self:
        """Linear in the length; what is composed already, as nearly all text is, costs no more than the look at it.

        Raises InvalidArgumentError (TRANSCRIPT_MARKS_EXCESSIVE).
        """
        check_marks(original)
        if unicodedata.is_normalized("NFC", original):
            return cls(original, original)
        parts: list[str] = []
        ours: list[int] = []
        theirs: list[int] = []
        here = at = 0  # how far, in the composed text and in the original
        for match in _CLUSTER.finditer(original.translate(_Kinds())):
            start, end = match.span()
            composed = _compose(original[start:end])
            parts += original[at:start], composed
            here += start - at
            ours += here, here + len(composed)
            theirs += start, end
            here, at = here + len(composed), end
        return cls(original, "".join((*parts, original[at:])), tuple(ours), tuple(theirs))

    def tokens(self, tokens: Sequence[Token]) -> Sequence[Token]:
        """The words of `text` as those of `original`."""
        return [self.token(token) for token in tokens] if self._ours else tokens

    def token(self, token: Token) -> Token:
        """A word of `text` as the word of `original` that it is. Whole clusters: a mark stays with its letter."""
        if not self._ours:
            return token
        start = self._place(token.char_start, inside=0)
        end = self._place(token.char_end - 1, inside=1) if token.char_end > token.char_start else start
        return replace(token, text=self.original[start:end], char_start=start, char_end=end)

    def _place(self, at: int, inside: int) -> int:
        """Where in `original` the character of `text` begins (`inside` 0) or ends (1); within a cluster, where that does."""
        before = bisect_right(self._ours, at)  # of these edges; an odd number: in a cluster
        if before % 2:
            return self._theirs[before - 1 + inside]
        return at + inside + (self._theirs[before - 1] - self._ours[before - 1] if before else 0)


class _Kinds(dict[int, str]):
    """A translation table that works each character out when it is first met."""

    def __missing__(self, point: int) -> str:
        self[point] = found = _kind(chr(point))
        return found


def _kind(char: str) -> str:
    """Marks melt, and so do the vowels and final consonants of decomposed Hangul."""
    if unicodedata.category(char)[0] == "M" or "\u1161" <= char <= "\u11c2":
        return _MELTS
    return _STAYS if unicodedata.is_normalized("NFC", char) else _CHANGES


@lru_cache(maxsize=4096)
def _compose(cluster: str) -> str:
    return unicodedata.normalize("NFC", cluster)
