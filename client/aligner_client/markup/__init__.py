"""What in a transcript is not said - tags, labels, sounds, pasted subtitle files - found in one pass before it is split in words.

docs/transcripts.md has the rules. Offsets of words stay those of the text that was sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aligner_client.markup import entities, files, labels, sounds, tags
from aligner_client.markup.kinds import Kind, Mark
from aligner_client.markup.labels import speaker
from aligner_client.markup.rewrite import Edit, Rewrite

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on

__all__ = ["SHOWN", "Kind", "Mark", "Markup", "speaker"]

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

    @property
    def changed(self) -> bool:
        """Whether `text` is not `original`."""
        return self._rewrite.changed

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The range of `original` that `text[start:end]` comes from."""
        return self._rewrite.span(start, end)


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
