"""ARPABET without stress, the sounds of the English dictionary, and each as a letter of IPA."""

# ruff: noqa: RUF001  letters of IPA look like Latin ones
from __future__ import annotations

from collections.abc import Mapping
from typing import Final

IPA: Final[Mapping[str, str]] = {
    "AA": "ɑ", "AE": "æ", "AH": "ʌ", "AO": "ɔ", "AW": "aʊ", "AY": "aɪ", "B": "b", "CH": "tʃ", "D": "d", "DH": "ð", "EH": "ɛ",
    "ER": "ɝ", "EY": "eɪ", "F": "f", "G": "ɡ", "HH": "h", "IH": "ɪ", "IY": "i", "JH": "dʒ", "K": "k", "L": "l", "M": "m",
    "N": "n", "NG": "ŋ", "OW": "oʊ", "OY": "ɔɪ", "P": "p", "R": "ɹ", "S": "s", "SH": "ʃ", "T": "t", "TH": "θ", "UH": "ʊ",
    "UW": "u", "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "ʒ",
}  # fmt: skip


def symbol(written: str) -> str | None:
    """A symbol, with stress or not, without it; None: it is none of ARPABET."""
    bare = written.rstrip("012")
    return bare if bare in IPA else None
