"""What may be said in several ways is one spoken word with them all: "ten_thirty|half_past_ten" for 10:30.

An engine takes the one that is in the audio: to PocketSphinx they are pronunciations of one word.
"""

from __future__ import annotations

_OR, _BLANK = "|", "_"


def either(*ways: tuple[str, ...]) -> tuple[str, ...]:
    """The spoken words of a token that is said in one of several ways, the likeliest first. None is empty."""
    different = dict.fromkeys(ways)
    return ways[0] if len(different) == 1 else (_OR.join(map(_BLANK.join, different)),)


def ways(word: str) -> list[list[str]]:
    """The ways to say a spoken word, each as the words of a dictionary; nearly always one, of one word."""
    return [way.split(_BLANK) for way in word.split(_OR)]
