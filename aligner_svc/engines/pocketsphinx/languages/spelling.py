"""How words of other languages are pronounced, in the phones of the English acoustic model.

Spelling becomes IPA by the rules of orthography2ipa, and IPA phones by ipa.py. Words in the Latin alphabet in a language that is
written with another are taken for English ones.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Collection
from functools import lru_cache

from orthography2ipa import G2P

from aligner_svc.engines.pocketsphinx.languages import ipa, syllables
from aligner_svc.engines.pocketsphinx.languages.ipa import Sound, Way, Ways, phones_of
from aligner_svc.engines.pocketsphinx.lexicon import Speller
from aligner_svc.text import arpabet, readings

_MAX_WORD = 64
"""Letters of a word that are spelled: the rules take time quadratic in the length. The longest word of Duden has 79."""
_LATIN = re.compile(r"[a-z']+")
_SYLLABLES = frozenset({"zh", "yue"})
_NOT_LATIN = frozenset({"be", "bg", "el", "ja", "ko", "mk", "ru", "uk"}) | _SYLLABLES
"""Languages in which a word in Latin letters is a foreign one."""

logging.getLogger("orthography2ipa").setLevel(logging.ERROR)  # it reports plugins that are not installed at every language


class LanguageSpeller:
    """Pronunciations of any word of some languages. Loads everything when built, as a sandboxed process opens no files later."""

    def __init__(self, languages: Collection[str]) -> None:
        self._rules = {language: G2P(language) for language in languages if language not in _SYLLABLES}
        self._english = Speller()
        for rules in self._rules.values():
            rules.transcribe_word("a")  # compiles what is compiled at the first word
        self.ways = lru_cache(maxsize=50_000)(self._ways)

    def _ways(self, word: str, language: str) -> Ways:
        """`word` in lower case, without blanks, or several ways to say it. Empty if it has no sound in `language`."""
        said = readings.ways(word)
        if len(said) == 1 and len(said[0]) == 1:
            return self._one(said[0][0], language)
        found: dict[tuple[str, ...], Way] = {}
        spelled = [[self._one(part, language) for part in way] for way in said]
        for take in range(2):  # all parts alike: the likeliest of each, then the second
            for parts in spelled:
                way = tuple(sound for part in parts if part for sound in part[min(take, len(part) - 1)])
                if way:
                    found.setdefault(phones_of(way), way)
        return tuple(found.values())[: ipa.MAX_VARIANTS]

    def _one(self, word: str, language: str) -> Ways:
        if given := readings.sounds(word):
            return tuple(ipa.variants(given))
        if language in _SYLLABLES and (syllable := syllables.ways(word, language)):
            return syllable
        if language in _NOT_LATIN and _LATIN.fullmatch(plain := _plain(word)):
            return (tuple(Sound(arpabet.IPA[phone], (phone,)) for phone in self._english.phones(plain)),)
        if language in _SYLLABLES:
            return ()
        return tuple(ipa.variants(self._rules[language].transcribe_word(word[:_MAX_WORD])))


def _plain(word: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKD", word) if not unicodedata.combining(char))
