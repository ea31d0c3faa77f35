"""What may be said in several ways is one spoken word with them all: "ten_thirty|half_past_ten" for 10:30.

An engine takes the one that is in the audio: to PocketSphinx they are pronunciations of one word.
"""

from __future__ import annotations

from collections.abc import Sequence

_OR, _BLANK, _SOUND = "|", "_", "="


def either(*ways: tuple[str, ...]) -> tuple[str, ...]:
    """The spoken words of a token that is said in one of several ways, the likeliest first. None is empty."""
    different = dict.fromkeys(ways)
    return ways[0] if len(different) == 1 else (_OR.join(map(_BLANK.join, different)),)


def ways(word: str) -> list[list[str]]:
    """The ways to say a spoken word, each as the words of a dictionary; nearly always one, of one word."""
    return [way.split(_BLANK) for way in word.split(_OR)]


def of_sounds(symbols: Sequence[str]) -> str:
    """The spoken word with these sounds, whatever its spelling: "=K=AE=T"."""
    return "".join(_SOUND + symbol for symbol in symbols)


def sounds(word: str) -> tuple[str, ...]:
    """Of a word made by `of_sounds`; empty for others."""
    return tuple(word[1:].split(_SOUND)) if word.startswith(_SOUND) else ()
