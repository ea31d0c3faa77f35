"""Characters that no transcript needs, and that do harm where it is shown or logged, are refused by place and name.

Refused: control characters but tab, line feed and carriage return; bidirectional embeddings, overrides and isolates, which
make a line read otherwise than it is (CVE-2021-42574); private use, which means whatever a font makes of it; surrogates and
noncharacters, which are no text at all (Unicode 15, 23.7). All else is taken, code points that this version of Unicode does
not know among them: tomorrow's emoji are no attack. Nothing is escaped: that is for whoever shows the words, in whatever he
shows them in.

More than 30 combining marks in a row are no text either (UAX #15, section 13), and an attack: Python sorts them in a time
that grows with the square of their number, 38 s for 200,000.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from aligner_svc.errors import InvalidArgumentError

# Written as what is taken, the likeliest first: ten times as fast as the same written as what is not.
_PLANES = "".join(f"{chr(plane << 16)}-{chr(plane << 16 | 0xFFFD)}" for plane in range(1, 15))
_REFUSED = re.compile(f"[^ -~\t\n\r\xa0-\u2029\u202f-\u2065\u206a-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd{_PLANES}]")
# unicodedata knows the controls as aliases alone, and only the way from name to character.
_CONTROLS = (
    "NULL", "START OF HEADING", "START OF TEXT", "END OF TEXT", "END OF TRANSMISSION", "ENQUIRY", "ACKNOWLEDGE", "ALERT",
    "BACKSPACE", "LINE TABULATION", "FORM FEED", "SHIFT OUT", "SHIFT IN", "DATA LINK ESCAPE", "DEVICE CONTROL ONE",
    "DEVICE CONTROL TWO", "DEVICE CONTROL THREE", "DEVICE CONTROL FOUR", "NEGATIVE ACKNOWLEDGE", "SYNCHRONOUS IDLE",
    "END OF TRANSMISSION BLOCK", "CANCEL", "END OF MEDIUM", "SUBSTITUTE", "ESCAPE", "INFORMATION SEPARATOR FOUR",
    "INFORMATION SEPARATOR THREE", "INFORMATION SEPARATOR TWO", "INFORMATION SEPARATOR ONE", "DELETE", "NEXT LINE",
)  # fmt: skip
_ALIASES = {unicodedata.lookup(name): name for name in _CONTROLS}
_KINDS = {"Cc": "a control character", "Co": "a private-use character", "Cs": "an unpaired surrogate", "Cn": "a noncharacter"}


_MARKS = 30
"""On one character, as in the Stream-Safe Text Format of UAX #15: twice what any language needs."""
_TOO_MANY = re.compile(f"m{{{_MARKS + 1}}}")


class _Marks(dict[int, str]):
    """A translation table that works each character out when it is first met: m for what sorts itself behind a letter."""

    def __missing__(self, point: int) -> str:
        self[point] = found = "m" if unicodedata.combining(chr(point)) else "a"
        return found


@dataclass(frozen=True, slots=True)
class Refused:
    """A character that is not taken, `at` code points from the text's beginning."""

    at: int
    code_point: int
    name: str
    """As Unicode has it, "RIGHT-TO-LEFT OVERRIDE", or what kind of thing it is where it has no name."""


def find_refused(text: str) -> Refused | None:
    """The first character of `text` that is not taken; None: there is none. 1 ms for 200,000 characters."""
    match = _REFUSED.search(text)
    if match is None:
        return None
    char = match[0]
    name = _ALIASES.get(char) or unicodedata.name(char, "") or _KINDS[unicodedata.category(char)]
    return Refused(match.start(), ord(char), name)


def check_marks(text: str, field: str = "config.transcript") -> None:
    """Raises InvalidArgumentError (TRANSCRIPT_MARKS_EXCESSIVE). For a whole transcript, as pieces may share a heap of marks."""
    if text.isascii():
        return
    heap = _TOO_MANY.search(text.translate(_Marks()))
    if heap is not None:
        message = f"the transcript holds more than {_MARKS} combining marks in a row, at character {heap.start()}: remove them"
        raise InvalidArgumentError("TRANSCRIPT_MARKS_EXCESSIVE", message, field=field)


def check_characters(text: str, offset: int = 0, field: str = "config.transcript") -> None:
    """Raises InvalidArgumentError (TRANSCRIPT_CHARACTER_REFUSED). `offset`: code points of the transcript before `text`."""
    refused = find_refused(text)
    if refused is not None:
        message = (
            f"the transcript holds U+{refused.code_point:04X} ({refused.name}) at character {offset + refused.at}: remove it"
        )
        raise InvalidArgumentError("TRANSCRIPT_CHARACTER_REFUSED", message, field=field)
