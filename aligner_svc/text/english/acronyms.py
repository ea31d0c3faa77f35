"""Words in capitals: NASA is read as a word, FBI is spelled, STOP is an ordinary word.

The rules, for two or more capitals:
1. a known initialism is spelled, a known acronym is a word;
2. without a vowel it is spelled;
3. with two or three letters it is spelled unless it is an everyday short word (NOT, YES);
4. longer, it is a word if it is pronounceable in English (a valid onset, vowels in groups of at most three, a valid
   ending); otherwise it is spelled.
In a transcript all in capitals, 3 and 4 do not apply and it is a word.
"""

from __future__ import annotations

import re

from aligner_svc.text.english.numbers import Words, possessive
from aligner_svc.text.english.wordlists import ACRONYMS, INITIALISMS, SHORT_WORDS

_CONSONANTS = "bcdfghjklmnpqrstvwxz"
_PRONOUNCEABLE = re.compile(
    rf"""
    (?: [{_CONSONANTS}y] | b[lr] | c[hlr] | dr | f[lr] | g[lr] | kn | p[hlr] | qu | s[chklmnpqtw] | s[ckpt]r | shr | spl | th
      | thr | tr | tw | w[hr] )?
    [aeiouy]{{1,3}}
    (?: [{_CONSONANTS}]{{1,3}} [aeiouy]{{1,3}} )*+
    (?: [{_CONSONANTS}] | [bdfgklmnprst]s | c[hkt] | ff | ft | ght | gh | l[dfklmpt] | mb | m[ps] | n[cdgktx] | ngs | nds | nch
      | ph | pt | r[bcdfgklmnpstv] | sh | s[kmpst] | t[hx] | tch | tz | wn | zz )?
    """,
    re.VERBOSE,
)
_PLURAL = re.compile(r"([A-Z]+)(s|'s|'S)")


def capitals(word: str, shouted: bool) -> Words | None:
    """How a word in capitals is said, with or without a plural or possessive s; None if it is not one."""
    if len(word) > 1 and word.isupper() and word.isalpha():
        return tuple(word.lower()) if spelled(word.lower(), shouted) else (word.lower(),)
    match = _PLURAL.fullmatch(word)
    if match is None:
        return None
    base = match[1].lower()
    if len(base) == 1 or not spelled(base, shouted):
        return (base + match[2].lower(),)
    return possessive(tuple(base))


def spelled(word: str, shouted: bool = False) -> bool:
    """Whether lower-case `word`, written in capitals, is said letter by letter."""
    if word in INITIALISMS:
        return True
    if word in ACRONYMS:
        return False
    if not any(vowel in word for vowel in "aeiouy"):
        return len(word) <= 6  # longer, it is a sound or a typing error, not an abbreviation
    if shouted:
        return False
    if len(word) <= 3:
        return word not in SHORT_WORDS
    return len(word) <= 6 and not _PRONOUNCEABLE.fullmatch(word)
