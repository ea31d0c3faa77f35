"""The languages that are aligned with the English acoustic model, and what is known of each."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from aligner_svc.engines.base import PhoneSet, Support, Tier
from aligner_svc.engines.pocketsphinx.languages import ipa
from aligner_svc.text import arpabet

_PHRASES = "edges of phrases in hand-marked clean speech"
MEASURED: Final = {
    "de": Support(Tier.APPROXIMATE, 29, _PHRASES),
    "el": Support(Tier.APPROXIMATE, 35, "single words in hand-marked clean speech"),
    "es": Support(Tier.APPROXIMATE, 13, _PHRASES),
    "fr": Support(Tier.APPROXIMATE, 59, _PHRASES),
    "ja": Support(Tier.APPROXIMATE, 23, _PHRASES),
    "pt": Support(Tier.APPROXIMATE, 45, _PHRASES),
    "zh": Support(Tier.APPROXIMATE, 59, _PHRASES),
}
"""Measured on real speech; the figures are explained in docs/languages.md."""
ENGLISH: Final = Support(Tier.EXACT, 16, "words in hand-marked clean speech (TIMIT)")

_LIBRARY = """
    aa ab af ak am an as av az ba be bg bi bm bn bo br bs ca ce ch co cr cs cv cy da ee eo et eu ff fi fj fo fy ga gd gl gn gu gv
    ha hi ho hr ht hu hy hz ia id ie ik io is it iu ka kg ki kk kl kn ko kr ks kv kw ky la lb lg li ln lt lu lv mg mh mi mk ml mn
    mr ms mt nb nd ne ng nl nn no nv ny oc om or os pa pl rm rn ru rw sa sc sd se sg si sk sl sm sn so sq sr st sv sw ta te tg tk
    tl tn to tr ts tt tw ty uk uz ve vi vo wa wo xh yo za zu ast ceb csb dsb fil haw hsb scn szl vec
    yue
"""
UNMEASURED: Final = frozenset(_LIBRARY.split())
"""Not measured on real speech: those that orthography2ipa has in a native spelling with vowels and words between spaces, drafts
excepted."""


_ARPABET, _IPA = PhoneSet("ARPABET", arpabet.symbol), PhoneSet("IPA", ipa.symbol)


def served(which: str) -> frozenset[str]:
    """Of "measured" or "all"; without Japanese where its dictionary is not installed, an extra of 115 MB."""
    languages = frozenset(MEASURED) | (UNMEASURED if which == "all" else frozenset())
    return languages if find_spec("sudachipy") and find_spec("sudachidict_small") else languages - {"ja"}


def support(language: str) -> Support:
    """What is known of a language that is served."""
    return ENGLISH if language == "en" else MEASURED.get(language, Support(Tier.EXPERIMENTAL))


def phones(language: str) -> PhoneSet:
    """How its sounds are written."""
    return _ARPABET if language == "en" else _IPA
