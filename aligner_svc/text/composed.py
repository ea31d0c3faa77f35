"""Text in any normalisation form is read composed (NFC): an "e" and an accent, or Korean letters, as one character.

The models were trained on composed text; macOS file names and some keyboards produce decomposed text. Offsets, and the
text of words, stay those of the text that was sent.
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
from aligner_svc.text.folding import LazyTable

_COMBINES, _CHANGES, _STAYS = "m", "c", "a"
# Clusters can be normalised one by one: they start at every character that cannot combine with the one before.
_CLUSTER = re.compile(f"[{_STAYS}{_CHANGES}]{_COMBINES}+|{_COMBINES}+|{_CHANGES}")


@dataclass(frozen=True, slots=True)
class Composed:
    """`text` is the NFC of `original`."""

    original: str
    text: str
    _edges: tuple[int, ...] = ()
    """In `text`, start and end in turn of each cluster that differs from `original`; all characters between are the same."""
    _original_edges: tuple[int, ...] = ()
    """The same in `original`."""

    @classmethod
    def of(cls, original: str) -> Self:
        """Linear in the length; composed text, which is nearly all text, costs one check.

        Raises InvalidArgumentError (TRANSCRIPT_MARKS_EXCESSIVE).
        """
        check_marks(original)
        if unicodedata.is_normalized("NFC", original):
            return cls(original, original)
        parts: list[str] = []
        edges: list[int] = []
        original_edges: list[int] = []
        here = at = 0  # how far, in the composed text and in the original
        for match in _CLUSTER.finditer(original.translate(LazyTable(_kind))):
            start, end = match.span()
            composed = _compose(original[start:end])
            parts += original[at:start], composed
            here += start - at
            edges += here, here + len(composed)
            original_edges += start, end
            here, at = here + len(composed), end
        return cls(original, "".join((*parts, original[at:])), tuple(edges), tuple(original_edges))

    def tokens(self, tokens: Sequence[Token]) -> Sequence[Token]:
        """The words of `text` as words of `original`, in whole clusters: a mark stays with its letter."""
        return [self._token(token) for token in tokens] if self._edges else tokens

    def _token(self, token: Token) -> Token:
        start = self._place(token.char_start, is_end=0)
        end = self._place(token.char_end - 1, is_end=1) if token.char_end > token.char_start else start
        return replace(token, text=self.original[start:end], char_start=start, char_end=end)

    def _place(self, at: int, is_end: int) -> int:
        """Where in `original` the character of `text` starts (`is_end` 0) or ends (1), or the cluster that it is in."""
        before = bisect_right(self._edges, at)  # edges up to here; an odd number: within a cluster
        if before % 2:
            return self._original_edges[before - 1 + is_end]
        return at + is_end + (self._original_edges[before - 1] - self._edges[before - 1] if before else 0)


def _kind(char: str) -> str:
    """Marks combine, and so do the vowels and final consonants of decomposed Hangul."""
    if unicodedata.category(char)[0] == "M" or "\u1161" <= char <= "\u11c2":
        return _COMBINES
    return _STAYS if unicodedata.is_normalized("NFC", char) else _CHANGES


@lru_cache(maxsize=4096)
def _compose(cluster: str) -> str:
    return unicodedata.normalize("NFC", cluster)
