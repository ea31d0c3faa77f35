"""Abbreviations and the words they stand for. Keys are lower-case, without the final dot."""

from __future__ import annotations

import re
from collections.abc import Callable

from aligner_svc.text.english.context import Context
from aligner_svc.text.english.numbers import Words
from aligner_svc.text.english.wordlists import DROPPED_G, SENTENCE_OPENERS
from aligner_svc.text.folding import fold


def _table(text: str) -> dict[str, Words]:
    rows = (line.split(":") for line in text.strip().splitlines())
    return {key.strip(): tuple(words.split()) for key, words in rows}


ANYWHERE = _table("""
    mr: mister
    mrs: missus
    prof: professor
    jr: junior
    sr: senior
    vs: versus
    etc: et cetera
    approx: approximately
    dept: department
    blvd: boulevard
    hwy: highway
    phd: p h d
    w/: with
    w/o: without
    b/c: because
    a/c: a c
    n/a: n a
""")
"""Expanded with or without a dot."""

WITH_DOT = _table("""
    e.g: for example
    eg: for example
    i.e: that is
    ie: that is
    a.m: a m
    p.m: p m
    ph.d: p h d
    b.sc: b s c
    m.sc: m s c
    ms: ms
    messrs: messieurs
    cf: compare
    viz: namely
    al: al
    ave: avenue
    rd: road
    ln: lane
    pkwy: parkway
    apt: apartment
    inc: incorporated
    ltd: limited
    corp: corporation
    bros: brothers
    assn: association
    est: established
    esq: esquire
    ext: extension
    tel: telephone
    govt: government
    univ: university
    feb: february
    aug: august
    sept: september
    oct: october
    nov: november
    dec: december
""")
"""Expanded with a dot only; without it they are other words or names."""

BEFORE_NAME = _table("""
    gen: general
    col: colonel
    maj: major
    lt: lieutenant
    sgt: sergeant
    capt: captain
    cmdr: commander
    adm: admiral
    sen: senator
    rep: representative
    gov: governor
    pres: president
    rev: reverend
    hon: honorable
    fr: father
    mt: mount
    ft: fort
""")
"""Expanded if capitalised, with a dot and before a capital, unlike in "one more rep. Then"."""

BEFORE_NUMBER = _table("""
    no: number
    nos: numbers
    fig: figure
    figs: figures
    vol: volume
    ch: chapter
    sec: section
    art: article
    eq: equation
    ed: edition
    p: page
    pp: pages
    pg: page
    ca: circa
    jan: january
    mar: march
    apr: april
    jun: june
    jul: july
""")
"""Expanded with a dot and before a digit: in "No. 5", not in "I said no."."""

NAMES = _table("""
    wwi: world war one
    wwii: world war two
    ww1: world war one
    ww2: world war two
""")
"""Expanded without a dot; a dot after them ends the sentence."""

_CONTEXTUAL = frozenset({"dr", "st", "co"})

_CLITICS = {"'ll": ("will",), "'re": ("are",), "'ve": ("have",), "'m": ("am",)}
"""Written as separate words ("I 'll"), as in some corpora."""

ELISIONS = frozenset(
    {
        *(clitic[1:] for clitic in _CLITICS),
        *("bout", "cause", "course", "cuse", "em", "kay", "n", "neath", "nuff", "round", "til", "tis", "twas", "twere"),
    }
)
"""Words with a leading apostrophe of their own."""

_INITIALS = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]\.?")
_NUMBERED = re.compile(r"([A-Za-z]+)\.(\d[\d,.]*[A-Za-z]?)")
_BARE_INITIALS = re.compile(r"(?:[A-Z]\.)+[A-Z]")

UNDOTTED = frozenset({*ANYWHERE, *NAMES, *_CONTEXTUAL, *DROPPED_G})
"""Lower-case words that `expand` may change even without a dot."""


def owns_dot(word: str, following: str) -> bool:
    """Whether the dot after `word` is part of it; `following` is the two characters after the dot."""
    if len(word) > 12:
        return False
    plain = fold(word)
    lower = plain.lower()
    if lower in ANYWHERE or lower in WITH_DOT or lower in _CONTEXTUAL or _INITIALS.fullmatch(plain):
        return True
    next_char = following.strip()[:1]
    if lower in BEFORE_NUMBER and next_char.isdecimal():
        return True
    return lower in BEFORE_NAME and plain[0].isupper() and next_char.isupper()


def expand(word: str, context: Context) -> Words | None:
    """The words of an abbreviation or a dotted initialism; None if `word` is neither."""
    dotted = word.endswith(".")
    lower = word.lower().removesuffix(".")
    found = ANYWHERE.get(lower) or NAMES.get(lower) or _CLITICS.get(lower)
    if found is None and lower in _CONTEXTUAL:
        found = _in_context(lower, dotted, context)
    if found is None and dotted:
        found = WITH_DOT.get(lower) or BEFORE_NUMBER.get(lower) or BEFORE_NAME.get(lower)
    if found is None and (_INITIALS.fullmatch(word) if dotted else _BARE_INITIALS.fullmatch(word)):
        found = tuple(lower.replace(".", ""))
    if found is None and lower in DROPPED_G:
        found = (lower + "g",)
    return found


def with_number(word: str, read: Callable[[str], Words]) -> Words | None:
    """no.1, fig.3a: an abbreviation and its number without a space; None if `word` is none."""
    match = _NUMBERED.fullmatch(word)
    first = BEFORE_NUMBER.get(match[1].lower()) if match else None
    return (*first, *read(match[2])) if match and first else None


def _in_context(lower: str, dotted: bool, context: Context) -> Words | None:
    """St. Paul or Main St., Dr. Smith or Mulholland Dr."""
    if lower == "co":
        return ("company",) if dotted else None
    after_name = context.before[:1].isupper() or context.before[:1].isdigit()
    before_name = context.after[:1].isupper() and not (after_name and context.after.lower() in SENTENCE_OPENERS)
    if lower == "dr":
        return ("drive",) if after_name and not before_name else ("doctor",)
    if before_name:
        return ("saint",)
    return ("street",) if dotted or after_name else None
