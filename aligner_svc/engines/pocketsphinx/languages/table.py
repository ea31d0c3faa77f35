"""The languages that are aligned with the English acoustic model, and what is known of each."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

MEASURED: Final = frozenset({"de", "el", "es", "fr", "ja", "pt", "zh"})
"""Measured on real speech."""

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


def served(which: str) -> frozenset[str]:
    """Of "measured" or "all"; without Japanese where its dictionary is not installed, an extra of 115 MB."""
    languages = MEASURED | UNMEASURED if which == "all" else MEASURED
    return languages if find_spec("sudachipy") and find_spec("sudachidict_small") else languages - {"ja"}
