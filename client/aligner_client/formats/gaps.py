# ruff: noqa: RUF001  typographic marks are the subject here
"""What is between the words of a transcript, divided: the end of the one before, the beginning of the one after.

A dialogue dash, >>, a speaker's label and an opening note belong to the word after them, and so does all that follows a line
break. A sound belongs to the word before, or to the one after if a sentence has ended.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from aligner_client.markup import SHOWN, Kind, Markup

_SENTENCE_END = re.compile("[.?!…。？！]")
_PIECE = re.compile(r"(?P<blank>[\s\x00-\x1f\x7f-\x9f]+)|[^\s\x00-\x1f\x7f-\x9f]+")
_DASH = re.compile("[-–—]+")
_TURN = re.compile(">{2,3}")
_VOICE = re.compile(r"<v[^\s>]*\s+([^>]+)>")
_NOTES = "♪♫♬"
_SPEAKER, _OTHER = "speaker", "other"
_OPENING = "([{¿¡“‘«"
_GLUED, _BLANK, _NEW_LINE, _NEW_CUE = -1, 0, 1, 2


@dataclass(frozen=True, slots=True)
class Gap:
    """Between two words. `opens`: 1 for a new line, 2 for a new cue."""

    tail: str = ""
    lead: str = ""
    glued: bool = False
    """No blank between the words: "word—word"."""
    ends_sentence: bool = False
    opens: int = 0


@dataclass(slots=True)
class _Chunk:
    text: str
    before: int
    """_GLUED, _BLANK, _NEW_LINE or _NEW_CUE."""
    kind: Kind | None = None


@dataclass(slots=True)
class _Between:
    """What is between two words, in chunks without blanks."""

    chunks: list[_Chunk] = field(default_factory=list)
    after: int = _GLUED
    """What is between the last chunk and the next word."""

    def add(self, text: str) -> None:
        for piece in _PIECE.finditer(text):
            if piece["blank"]:
                breaks = piece[0].count("\n")
                self.after = max(self.after, _NEW_CUE if breaks > 1 else _NEW_LINE if breaks else _BLANK)
            elif self.chunks and self.after == _GLUED:
                self.chunks[-1].text += piece[0]
            else:
                self.chunks.append(_Chunk(piece[0], self.after))
                self.after = _GLUED

    def add_mark(self, text: str, kind: Kind) -> None:
        voice = _VOICE.fullmatch(text)
        shown = f"{voice[1]}:" if voice else text
        self.chunks.append(_Chunk(" ".join(shown.split()), self.after, kind))
        self.after = _BLANK if kind is Kind.LABEL else _GLUED

    def divided(self, notes: int, *, dialogue: bool) -> Gap:
        """`notes`: how many musical notes are before it; after an even number the next one opens. `dialogue`: see _opens."""
        if not self.chunks or (len(self.chunks) == 1 and self.chunks[0].before == self.after == _GLUED):
            between = self.chunks[0].text if self.chunks else ""
            cut = next((place for place, char in enumerate(between) if char in _OPENING), len(between))
            glued = self.after == _GLUED
            ends = _SENTENCE_END.search(between) is not None
            return Gap(between[:cut], between[cut:], glued, ends, max(self.after, 0))
        first, tail, opens = len(self.chunks), "", 0
        for place, chunk in enumerate(self.chunks):
            ended = _SENTENCE_END.search(tail) is not None
            turn = self._opens(place, notes, ended=ended or dialogue)
            if chunk.before >= _NEW_LINE or turn:
                sung = chunk.text[0] in _NOTES and any(note in tail for note in _NOTES)
                first, opens = place, _NEW_LINE if turn == _SPEAKER or sung else 0
                break
            tail += chunk.text if chunk.before == _GLUED else f" {chunk.text}"
            notes += sum(map(chunk.text.count, _NOTES))
        lead = self.chunks[first:]
        opens = max([opens, self.after, *(chunk.before for chunk in lead)])
        text = "".join(f"{chunk.text} " for chunk in lead)
        said = "".join(chunk.text for chunk in self.chunks[:first] if chunk.kind is None)
        return Gap(
            tail, text.removesuffix(" ") if self.after == _GLUED else text, False, _SENTENCE_END.search(said) is not None, opens
        )

    def _opens(self, place: int, notes: int, *, ended: bool) -> str:
        """Why a chunk belongs to the word after it; "" if it does not.

        `ended`: a sentence has, or the lines of a dialogue begin with dashes, and the next word with a capital.
        """
        chunk = self.chunks[place]
        if chunk.before == _GLUED and chunk.kind is not Kind.LABEL:
            return ""
        if chunk.kind is Kind.LABEL or _TURN.fullmatch(chunk.text):
            return _SPEAKER
        if chunk.kind is Kind.SOUND:
            return _OTHER if ended else ""
        if _DASH.fullmatch(chunk.text) and ended:
            return _SPEAKER
        if chunk.text[0] in _NOTES and notes % 2 == 0:
            return _OTHER
        return _OTHER if place == len(self.chunks) - 1 and self.after == _GLUED else ""


def divided(transcript: str, words: Sequence[tuple[int, int]]) -> list[Gap]:
    """One gap more than words: before the first, which has a lead only, between them, and after the last, which has a tail only.

    `words`: start and end of each in the transcript. Linear in its length.
    """
    markup = Markup.of(transcript)
    ends = [0, *(end for _, end in words)]
    starts = [*(start for start, _ in words), len(transcript)]
    gaps: list[Gap] = []
    notes, dialogue = 0, False
    for place, (start, end) in enumerate(zip(ends, starts, strict=True)):
        between = _between(markup, start, end)
        text = " ".join(chunk.text for chunk in between.chunks)
        if place == len(words):
            gaps.append(Gap(tail=_plain(between), ends_sentence=True))
        elif place == 0:
            gaps.append(Gap(lead=_plain(between) + ("" if between.after == _GLUED else " ")))
            dialogue = _DASH.match(text) is not None
        else:
            gaps.append(between.divided(notes, dialogue=dialogue and transcript[end : end + 1].isupper()))
        notes += sum(map(text.count, _NOTES))
    return gaps


def _plain(between: _Between) -> str:
    return "".join(chunk.text if chunk.before == _GLUED else f" {chunk.text}" for chunk in between.chunks)


def _between(markup: Markup, start: int, end: int) -> _Between:
    between = _Between()
    marks = markup.marks
    place = bisect_left(marks, start, key=lambda mark: mark.start)
    while place < len(marks) and marks[place].end <= end:
        mark = marks[place]
        place += 1
        if mark.kind in SHOWN:
            between.add(markup.between(start, mark.start))
            between.add_mark(mark.instead, mark.kind)
            start = mark.end
    between.add(markup.between(start, end))
    return between
