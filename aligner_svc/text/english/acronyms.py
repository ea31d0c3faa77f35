"""Words in capitals: NASA is read as a word, FBI is spelled, STOP and CHURCH are ordinary words in capitals for stress.

The rules, for two or more capitals:
1. a known initialism is spelled, a known acronym is a word;
2. without a vowel it is spelled, but for a few sounds (HMM);
3. with two letters it is spelled unless it is an everyday short word (NO, SO) or a neighbour is in capitals for stress too
   ("GIVE IT BACK"); US, IT and WHO go by the words beside them ("the US economy", "between US two");
4. longer, it is a word if the dictionary has it, or if it is pronounceable in English and has four letters or more (a valid
   onset, vowels in groups of at most three, a valid ending); otherwise it is spelled.
In a transcript all in capitals, 3 and 4 do not apply and it is a word, but for US and IT after "the".
"""

from __future__ import annotations

import re

from aligner_svc.text.english.context import Context
from aligner_svc.text.english.dictionary import CONTRACTIONS, LONGEST, entries
from aligner_svc.text.english.numbers import Words, possessive
from aligner_svc.text.english.wordlists import (
    ACRONYMS,
    AFTER_INITIALISM,
    AFTER_US,
    BEFORE_INITIALISM,
    BEFORE_US,
    INITIALISMS,
    SHORT_WORDS,
)

_CONSONANTS = "bcdfghjklmnpqrstvwxz"
_PRONOUNCEABLE = re.compile(
    rf"""
    (?: [{_CONSONANTS}y] | b[lr] | c[hlr] | dr | f[lr] | g[lr] | kn | p[hlr] | qu | s[chklmnpqtw] | s[ckpt]r | shr | spl | th
      | thr | tr | tw | w[hr] )?
    [aeiouy]{{1,3}}
    (?: [{_CONSONANTS}]{{1,3}} [aeiouy]{{1,3}} )*
    (?: [{_CONSONANTS}] | [bdfgklmnprst]s | c[hkt] | ff | ft | ght | gh | l[dfklmpt] | mb | m[ps] | n[cdgktx] | ngs | nds | nch
      | ph | pt | r[bcdfgklmnpstv] | sh | s[kmpst] | t[hx] | tch | tz | wn | zz )?
    """,
    re.VERBOSE,
)
_PLURAL = re.compile(r"([A-Z]+)(s|'s|'S)")


def capitals(word: str, context: Context) -> Words | None:
    """How a word in capitals is said, with or without a plural or possessive s; None if it is not one."""
    lower = word.lower()
    if len(word) > 1 and word.isupper():
        if lower in CONTRACTIONS:
            return (lower,)
        if word.isalpha():
            return tuple(lower) if _spelled_here(lower, context) else (lower,)
    match = _PLURAL.fullmatch(word)
    if match is None:
        return None
    base = match[1].lower()
    if len(base) == 1 or not spelled(base, context.shouted):
        return (base + match[2].lower(),)
    return possessive(tuple(base))


def _spelled_here(word: str, context: Context) -> bool:
    before, after = context.before, context.after
    if word in BEFORE_INITIALISM and before.lower() in BEFORE_INITIALISM[word]:
        return word != "who" or not context.shouted
    if word not in INITIALISMS and len(word) == 2 and (_stressed(before) or _stressed(after)):
        return False
    if word not in BEFORE_INITIALISM or context.shouted or not context.words:
        return spelled(word, context.shouted)
    if after in AFTER_INITIALISM[word]:
        return True
    return word == "us" and after != "" and after not in AFTER_US and before.lower() not in BEFORE_US


def _stressed(neighbour: str) -> bool:
    """Whether a word is in capitals for stress."""
    lower = neighbour.lower()
    return len(neighbour) > 1 and neighbour.isupper() and neighbour.isalpha() and lower not in ACRONYMS and not spelled(lower)


def spelled(word: str, shouted: bool = False) -> bool:
    """Whether lower-case `word`, written in capitals, is said letter by letter."""
    if word in INITIALISMS:
        return True
    if word in ACRONYMS or word in SHORT_WORDS:
        return False
    if not any(vowel in word for vowel in "aeiouy"):
        return len(word) <= LONGEST  # longer, it is a sound or a typing error, not an abbreviation
    if shouted:
        return False
    return len(word) == 2 or (_doubtful(word) and word not in entries(_doubtful))


def _doubtful(word: str) -> bool:
    """Whether the look of a word with a vowel does not say that it is one."""
    return len(word) <= 3 or (len(word) <= LONGEST and not _PRONOUNCEABLE.fullmatch(word))
