"""Where the words of a transcript start and end, by its punctuation and independent of the language."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from aligner_svc.text.folding import BREAK, EDGE, EN_DASH, INVISIBLE, shadow


class Piece(NamedTuple):
    """`text == transcript[start:end]`, in code points."""

    text: str
    start: int
    end: int


OwnsDot = Callable[[str, str], bool]
"""(word, the two characters after its dot) -> whether the dot belongs to the word."""

_RUN = rf"[^ {BREAK}{EDGE}{EN_DASH}$'\-.,:/%&@#+=*_°()]*"
"""The rest of a run of letters and digits, with marks and invisible characters: all that a shadow has but these."""

# Matches the shadow. Every join is one character between two letters or digits, and nothing after a word's first letter can
# fail, so that no input makes it backtrack far. No possessive quantifiers: Python before 3.11.5 matches them wrongly
# (https://github.com/python/cpython/issues/106052).
_TOKEN = re.compile(
    rf"""
    (?P<url> \b (?:https?|ftp|file):// [^ {EDGE}]+ )
    | (?P<alone> (?<![^ ]) [&+=@%$] (?![^ ]) | °[CF]\b | (?<=\d[ ]) \* (?=[ ]\d) )   # Tom & Jerry, 2 + 2 = 4, 5 €, 20 °C, 5 x 3
    | (?: (?<![^ |({EDGE}]) [-+] (?= \$?\.?\d ) )?                        # a sign only where a number starts
      (?: \$ (?= \.?\d ) | (?<![^ |({EDGE}]) \$ [-+] (?= \.?\d ) )?         # $5, $-5
      (?: (?<![.\w]) \. (?= \d ) | (?<![\w&]) [#@] (?= \w ) | (?P<elision> (?<!\w)' (?= \w ) ) )?
      [^\W_] {_RUN}
      (?:
        (?:
          ' (?= [^\W_] )
          | [%$]? - \$? (?= [^\W_] )
          | (?<= \d ) [%$]? {EN_DASH} \$? (?= \d )                          # 2010-2012 set with an en dash
          | \. (?! (?<= [a-z0-9]\. ) [A-Z][a-z] ) (?= [^\W_] )      # "the end.Then" lacks a space
          | (?<= \d ) , (?= \d{{3}}(?!\d) | \d\d (?: ,\d\d ){{0,4}} ,\d{{3}}(?!\d) )   # thousands, lakhs
          | (?<= \.[A-Z] ) \.- (?= [^\W_] )                           # U.S.-based
          | (?<= \d ) : (?= \d )
          | [/&_+=*@] (?= [^\W_] )
          | (?<= [A-Z] ) \$ (?= \.?\d )                             # US$5
        )
        [^\W_] {_RUN}
      )*
      (?:
        % | ° (?: [CFK]\b )? | \+\+ | \+ (?! [\w+] ) | (?<= \b[A-Za-z] ) \# (?! \w ) | (?<= \d ) \$ (?! \w )
        | (?<= \bw ) / (?= [ ] ) | \( (?: s | es ) \)               # C++, A+, C#, 5€, w/, word(s)
      )?
    """,
    re.VERBOSE,
)
_GROUPS = re.compile(r"\d \d{3}(?!\d)")
_URL_EDGE = ".,;:!?'\u2019)]}*_~|/"
_DECADE = re.compile(r"'\d\d(?:s|\b)")


def split(transcript: str, owns_dot: OwnsDot, elisions: frozenset[str]) -> list[Piece]:
    """The words in order, without the punctuation around them. Linear in the length.

    `elisions`: lower-case words with a leading apostrophe of their own ("tis").
    """
    shade = shadow(transcript)
    pieces: list[Piece] = []
    for match in _TOKEN.finditer(shade):
        start, end = match.span()
        kind = match.lastgroup
        if kind == "url":
            end = start + len(transcript[start:end].rstrip(_URL_EDGE))
        elif kind == "elision" and not _elided(shade[start:end], elisions):
            start = match.start("elision") + 1
        while shade[end - 1] == INVISIBLE:
            end -= 1
        if shade[end : end + 1] == "." != shade[end + 1 : end + 2]:
            end += owns_dot(transcript[start:end], transcript[end + 1 : end + 3])
        pieces.append(Piece(transcript[start:end], start, end))
    return list(_joined(pieces, transcript)) if _GROUPS.search(shade) else pieces


def _joined(pieces: Sequence[Piece], transcript: str) -> Iterator[Piece]:
    """1 000 000 is one number: groups of three digits with one blank between, and no phone number."""
    place = 0
    while place < len(pieces):
        end = place + 1
        if 1 <= len(pieces[place].text) <= 3 and pieces[place].text.isdecimal():
            while end < len(pieces) and _is_group(pieces[end]) and _one_blank(pieces[end - 1], pieces[end], transcript):
                end += 1
            groups = pieces[place + 1 : end]
            followed = end < len(pieces) and pieces[end].text.isdecimal() and _one_blank(pieces[end - 1], pieces[end], transcript)
            few = len(groups) > 1 and len(pieces[place].text) < 3  # 100 200 300 is a list
            certain = few or any(group.text[0] == "0" or transcript[group.start - 1] != " " for group in groups)
            if followed or not certain:
                end = place + 1
        start, last = pieces[place], pieces[end - 1]
        yield start if last is start else Piece(transcript[start.start : last.end], start.start, last.end)
        place = end


def _is_group(piece: Piece) -> bool:
    return len(piece.text) == 3 and piece.text.isdecimal()


def _one_blank(left: Piece, right: Piece, transcript: str) -> bool:
    return right.start - left.end == 1 and transcript[left.end].isspace() and transcript[left.end] not in "\t\n\r"


def _elided(word: str, elisions: frozenset[str]) -> bool:
    return word[1:].lower() in elisions or _DECADE.match(word) is not None
