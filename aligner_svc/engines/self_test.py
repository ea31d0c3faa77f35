"""Whether this Python splits text as it should: a wrong split cuts words, silently."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence

from aligner_svc.domain import Token
from aligner_svc.engines.base import EngineStartError

_TEXT = "They began it: don't you? Cafe\u0301s, re\u00adopened again and again at CHURCH"
"""What is in capitals also has the dictionary read before the first call."""
_WORDS = ["They", "began", "it", "don't", "you", "Cafe\u0301s", "re\u00adopened", "again", "and", "again", "at", "CHURCH"]


def check_split(split: Callable[[str, str], Sequence[Token]]) -> None:
    """Raises EngineStartError. Microseconds, so that every start can afford it.

    Python 3.11.2, which Debian 12 has, matched the patterns that were used before wrongly: "began" came back as "bega".
    """
    words = [token.text for token in split(_TEXT, "en")]
    if words != _WORDS:
        shown, python = " ".join(words), platform.python_version()
        raise EngineStartError(f"Python {python} splits text wrongly ({shown}): run the server with another release of 3.11")
