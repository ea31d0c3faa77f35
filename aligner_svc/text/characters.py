"""Characters that no transcript needs and that do harm where it is shown or logged are refused.

Refused: control characters except tab, line feed and carriage return; bidirectional embeddings, overrides and isolates,
which make a line read differently from what it says (CVE-2021-42574); private use, whose meaning depends on the font;
surrogates and noncharacters, which are not text (Unicode 15, 23.7). All other code points are accepted, including those
that this version of Unicode does not define, such as future emoji. Nothing is escaped: escaping depends on where the
words are shown.

More than 30 combining marks in a row are not text either (UAX #15, section 13), and an attack: Python takes time
quadratic in their number to sort them, 38 s for 200,000.
"""

from __future__ import annotations

import re
import unicodedata

from aligner_svc.errors import InvalidArgumentError
from aligner_svc.text.folding import LazyTable

# The accepted ranges, likeliest first: ten times as fast as listing what is refused.
_PLANES = "".join(f"{chr(plane << 16)}-{chr(plane << 16 | 0xFFFD)}" for plane in range(1, 15))
_REFUSED = re.compile(f"[^ -~\t\n\r\xa0-\u2029\u202f-\u2065\u206a-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd{_PLANES}]")
# unicodedata has the names of control characters as aliases only, which `name` does not return.
_CONTROLS = (
    "NULL", "START OF HEADING", "START OF TEXT", "END OF TEXT", "END OF TRANSMISSION", "ENQUIRY", "ACKNOWLEDGE", "ALERT",
    "BACKSPACE", "LINE TABULATION", "FORM FEED", "SHIFT OUT", "SHIFT IN", "DATA LINK ESCAPE", "DEVICE CONTROL ONE",
    "DEVICE CONTROL TWO", "DEVICE CONTROL THREE", "DEVICE CONTROL FOUR", "NEGATIVE ACKNOWLEDGE", "SYNCHRONOUS IDLE",
    "END OF TRANSMISSION BLOCK", "CANCEL", "END OF MEDIUM", "SUBSTITUTE", "ESCAPE", "INFORMATION SEPARATOR FOUR",
    "INFORMATION SEPARATOR THREE", "INFORMATION SEPARATOR TWO", "INFORMATION SEPARATOR ONE", "DELETE", "NEXT LINE",
)  # fmt: skip
_ALIASES = {unicodedata.lookup(name): name for name in _CONTROLS}
_KINDS = {"Cc": "a control character", "Co": "a private-use character", "Cs": "an unpaired surrogate", "Cn": "a noncharacter"}


_MAX_MARKS = 30
"""Combining marks in a row, as in the Stream-Safe Text Format of UAX #15: twice what any language needs."""
_TOO_MANY = re.compile(f"m{{{_MAX_MARKS + 1}}}")


def first_refused(text: str) -> int | None:
    """Where the first character of `text` that is not accepted is; None if there is none. 1 ms for 200,000 characters."""
    match = _REFUSED.search(text)
    return match.start() if match else None


def check_marks(text: str) -> None:
    """Raise InvalidArgumentError (TRANSCRIPT_MARKS_EXCESSIVE). `text` is a whole transcript: marks may span two of its parts."""
    if text.isascii():
        return
    marks = _TOO_MANY.search(text.translate(LazyTable(lambda char: "m" if unicodedata.combining(char) else "a")))
    if marks is not None:
        message = f"the transcript has more than {_MAX_MARKS} combining marks in a row, at character {marks.start()}: remove them"
        raise InvalidArgumentError("TRANSCRIPT_MARKS_EXCESSIVE", message, field="config.transcript")


def check_characters(text: str, offset: int = 0) -> None:
    """Raise InvalidArgumentError (TRANSCRIPT_CHARACTER_REFUSED). `offset`: code points of the transcript before `text`."""
    at = first_refused(text)
    if at is not None:
        char = text[at]
        name = _ALIASES.get(char) or unicodedata.name(char, "") or _KINDS[unicodedata.category(char)]
        message = f"the transcript has U+{ord(char):04X} ({name}) at character {offset + at}: remove it"
        raise InvalidArgumentError("TRANSCRIPT_CHARACTER_REFUSED", message, field="config.transcript")
