"""Text in any normalisation form is read composed (NFC): an "e" and an accent, or Korean letters, as one character.

The models were trained on composed text; macOS file names and some keyboards produce decomposed text. Offsets, and the
text of words, stay those of the text that was sent.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

from aligner_client.markup.rewrite import Edit, Rewrite
from aligner_svc.domain import Token
from aligner_svc.text.characters import check_marks
from aligner_svc.text.folding import LazyTable

_COMBINES, _CHANGES, _STAYS = "m", "c", "a"
# Clusters can be normalised one by one: they start at every character that cannot combine with the one before.
_CLUSTER = re.compile(f"[{_STAYS}{_CHANGES}]{_COMBINES}+|{_COMBINES}+|{_CHANGES}")


@dataclass(frozen=True, slots=True)
class Composed:
    """`text` is the NFC of `original`."""

    _rewrite: Rewrite

    @classmethod
    def of(cls, original: str) -> Self:
        """Linear in the length; composed text, which is nearly all text, costs one check.

        Raises InvalidArgumentError (TRANSCRIPT_MARKS_EXCESSIVE).
        """
        check_marks(original)
        if unicodedata.is_normalized("NFC", original):
            return cls(Rewrite.of(original, ()))
        clusters = (match.span() for match in _CLUSTER.finditer(original.translate(LazyTable(_kind))))
        return cls(Rewrite.of(original, (Edit(start, end, _compose(original[start:end])) for start, end in clusters)))

    @property
    def text(self) -> str:
        """What is read."""
        return self._rewrite.text

    def tokens(self, tokens: Sequence[Token]) -> Sequence[Token]:
        """The words of `text` as words of `original`, in whole clusters: a mark stays with its letter."""
        return [self._token(token) for token in tokens] if self._rewrite.changed else tokens

    def _token(self, token: Token) -> Token:
        start, end = self._rewrite.span(token.char_start, token.char_end)
        return replace(token, text=self._rewrite.original[start:end], char_start=start, char_end=end)


def _kind(char: str) -> str:
    """Marks combine, and so do the vowels and final consonants of decomposed Hangul."""
    if unicodedata.category(char)[0] == "M" or "\u1161" <= char <= "\u11c2":
        return _COMBINES
    return _STAYS if unicodedata.is_normalized("NFC", char) else _CHANGES


@lru_cache(maxsize=4096)
def _compose(cluster: str) -> str:
    return unicodedata.normalize("NFC", cluster)
