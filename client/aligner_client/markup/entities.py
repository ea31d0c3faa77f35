"""Character references of HTML: &amp; &#39; &nbsp;, also escaped twice (&amp;#39;), as web APIs of captions give them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from html.entities import html5

from aligner_client.markup.rewrite import Edit

_REFERENCE = re.compile(
    r"&(?:amp;)*(?:#([0-9]{1,7})(?:;|(?![0-9]))|#[xX]([0-9a-fA-F]{1,6});|([A-Za-z][A-Za-z0-9]{1,31});|(nbsp|quot|apos)(?![\w;]))"
)
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"


def references(text: str) -> Iterator[Edit]:
    """Linear in the length. A name that HTML does not have is no reference."""
    for match in _REFERENCE.finditer(text) if "&" in text else ():
        decimal, hexadecimal, name, unfinished = match.groups()
        name = name or unfinished  # &nbsp without the semicolon
        if name:
            found = html5.get(name + ";")
        else:
            point = int(decimal) if decimal else int(hexadecimal, 16)
            found = chr(point) if 0 < point <= 0x10FFFF else " "
        if found is not None:
            yield Edit(*match.span(), "".join(map(_accepted, found)))


def _accepted(char: str) -> str:
    """A character that a transcript may have (see text/characters.py), else a blank: a reference is no way around that."""
    plain = char.isprintable() or char in "\t\n\r" or char in _INVISIBLE or unicodedata.category(char) == "Zs"
    return char if plain else " "
