"""Words that the rules for capitals would spell, and that an English dictionary has: CHURCH, FIRST, NEWS.

The dictionary is the CMU's, as it comes with PocketSphinx: 134,000 words, names included. Where it has an initialism ("ibm"), it
has the names of its letters as pronunciation, so that reading it as a word does no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

LONGEST = 6
"""Letters; longer words in capitals are never spelled."""


@lru_cache(maxsize=1)
def entries(doubtful: Callable[[str], bool]) -> frozenset[str]:
    """The entries of 3 to LONGEST letters that are `doubtful`, some 6,000. 0.1 s the first time. None without PocketSphinx."""
    package = find_spec("pocketsphinx")  # finds the package without running it
    if package is None or package.origin is None:
        return frozenset()
    path = Path(package.origin).parent / "model" / "en-us" / "cmudict-en-us.dict"
    with path.open(encoding="utf-8") as lines:
        words = (line.partition(" ")[0] for line in lines)
        return frozenset(word for word in words if 2 < len(word) <= LONGEST and word.isalpha() and doubtful(word))


_HOSTS = "i you he she it we they who what that there here how where when why let"
CONTRACTIONS = frozenset(f"{host}'{clitic}" for host in _HOSTS.split() for clitic in ("s", "m", "re", "ve", "ll", "d"))
"""Words with an apostrophe that are no possessives: IT'S is no initialism."""
