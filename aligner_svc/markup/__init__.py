"""What in a transcript is not said - tags, labels, sounds, pasted subtitle files - found in one pass before it is split in words.

docs/transcripts.md has the rules. Offsets of words stay those of the text that was sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from aligner_svc.domain import Token
from aligner_svc.markup import entities, files, labels, sounds, tags
from aligner_svc.markup.kinds import Kind, Mark
from aligner_svc.markup.rewrite import Edit, Rewrite

__all__ = ["SHOWN", "Kind", "Mark", "Markup"]

SHOWN = frozenset({Kind.LABEL, Kind.SOUND})
"""What subtitles show."""


@dataclass(frozen=True, slots=True)
class Markup:
    """`text` is what is left of `original` to be read: without marks, character references replaced."""

    original: str
    _rewrite: Rewrite
    marks: tuple[Mark, ...]
    """Those with a letter or digit, which come back as words, in places of `original`. `instead` is what they say."""

    @classmethod
    def of(cls, original: str) -> Self:
        """Linear in the length."""
        references = list(entities.references(original))
        decoded = Rewrite.of(original, references)
        marks = _marks(decoded.text)
        edits: list[Edit] = []
        said: list[Mark] = []
        reached = 0  # of the references
        for mark in marks:
            start, end = decoded.span(mark.start, mark.end)
            while reached < len(references) and references[reached].start < start:
                edits.append(references[reached])
                reached += 1
            while reached < len(references) and references[reached].start < end:
                reached += 1
            edits.append(Edit(start, end, mark.instead))
            says = decoded.text[mark.start : mark.end]
            if mark.kind is not Kind.TAG and any(map(str.isalnum, says)):
                said.append(Mark(start, end, mark.kind, says))
        return cls(original, Rewrite.of(original, [*edits, *references[reached:]]), tuple(said))

    @property
    def text(self) -> str:
        """What is read."""
        return self._rewrite.text

    def between(self, start: int, end: int) -> str:
        """What is left of `original[start:end]`, the text between two words."""
        return self._rewrite.between(start, end)

    def tokens(self, tokens: Sequence[Token]) -> Sequence[Token]:
        """The words of `text` and the marks, in order, as words of `original`. The text of a word is what is read of it."""
        if not self._rewrite.changed:
            return tokens
        moved = [self._moved(token) for token in tokens]
        sent = self.original
        marks = [Token(sent[mark.start : mark.end], mark.start, mark.end, (), skipped=True) for mark in self.marks]
        return sorted([*marks, *moved], key=lambda token: token.char_start)

    def _moved(self, token: Token) -> Token:
        start, end = self._rewrite.span(token.char_start, token.char_end)
        return replace(token, char_start=start, char_end=end)


def _marks(text: str) -> list[Mark]:
    """In order and apart: each kind is looked for in what those before left over."""
    found: list[Mark] = []
    for find in (files.fields, tags.tags, sounds.sounds, sounds.footnotes, labels.labels):
        if new := _apart(find(text)):
            found += new
            text = _blanked(text, new)
    return _apart(found)  # JOHN (sighing): is one label


def _apart(marks: Iterable[Mark]) -> list[Mark]:
    """Without those that begin within another."""
    kept: list[Mark] = []
    for mark in sorted(marks):
        if not kept or mark.start >= kept[-1].end:
            kept.append(mark)
    return kept


def _blanked(text: str, marks: Sequence[Mark]) -> str:
    """The text with blanks for the marks, line breaks where a mark of a file ends a line."""
    parts: list[str] = []
    at = 0
    for mark in marks:
        blank = "\n" if mark.kind is Kind.FILE and mark.instead != " " else " "
        parts += text[at : mark.start], blank * (mark.end - mark.start)
        at = mark.end
    return "".join((*parts, text[at:]))
