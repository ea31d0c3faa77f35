"""Splits transcripts into the words Qwen3-ForcedAligner was trained on, and finds each in the caller's text.

Gives exactly the words of `Qwen3ForceAlignProcessor` (qwen_asr 0.0.6) without importing it, which takes three seconds and loads
torch.
"""

from __future__ import annotations

import re
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from itertools import compress
from pathlib import Path
from types import ModuleType

from aligner_svc.domain import Token

LANGUAGES = frozenset({"zh", "en", "yue", "fr", "de", "it", "ja", "ko", "pt", "ru", "es"})
"""Primary subtags of the languages the model was trained on."""

# Every character of a transcript is mapped to its kind, so that a match in the kinds is a range of the transcript.
_LETTER = "a"  # or number
_IDEOGRAPH = "c"  # a word of its own where spaces separate words
_APOSTROPHE = "'"  # a letter to the model
_MARK = "m"  # combining: not shown to the model, but part of the letter before it
_FORMAT = "f"  # soft hyphens and joiners: not shown, and part of no letter
_SPACE = " "
_OTHER = "."
_SHOWN = frozenset({_LETTER, _IDEOGRAPH, _APOSTROPHE})

# Linear: what is given back after a run is looked at once more. No possessive quantifiers: Python before 3.11.5 matches them
# wrongly (https://github.com/python/cpython/issues/106052).
_SPACED_WORD = re.compile(r"c | [a'] (?: [^ac'\ ]* [a'] )*", re.VERBOSE)
_LETTERS = re.compile(r"[ac] (?: .* [ac] )?", re.VERBOSE | re.DOTALL)
_APOSTROPHES = re.compile(r"' (?: .* ' )?", re.VERBOSE | re.DOTALL)
_MARKS = re.compile(r"(?: [fm]* m )?", re.VERBOSE)
_SEGMENT = re.compile(r"\S+")
_CLUSTER = re.compile(r".\+*")
_CJK = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ceaf]")

_Span = tuple[int, int]
_nagisa_lock = threading.Lock()  # nagisa has one graph for the whole process


def split(transcript: str, language: str) -> tuple[Token, ...]:
    """Split a transcript into the model's words, in order; an empty tuple: nothing to align.

    `transcript` is any string, `language` one of LANGUAGES; raises ValueError for another. `spoken` holds the one word that the
    model is shown. `text` is the caller's spelling, from its first letter or digit to its last with the marks that follow.
    Apostrophes at its edges are left out, straight and curly, for they may be quotation marks. To the model a straight one is a
    letter, so one that stands alone is a word.

    Spans never decrease or overlap, with one exception in Japanese: of several words written with one character (½ is "1" and
    "2") those without another character share it.

    Linear in the length. Japanese is slow: nagisa takes 0.2 ms and 30 kB a character, keeps the memory, and holds the
    interpreter lock for a third of the time.
    """
    if language not in LANGUAGES:
        raise ValueError(f"no word rules for {language!r}")
    kinds = transcript.translate(_Table(_kind))
    if language == "ja":
        return tuple(_japanese(transcript, kinds))
    if language == "ko":
        return tuple(_written(transcript, kinds, _korean(transcript)))
    return split_at_spaces(transcript)


def split_at_spaces(transcript: str) -> tuple[Token, ...]:
    """As `split` for a language that separates its words by spaces; ideographs are words of their own."""
    kinds = transcript.translate(_Table(_kind))
    return tuple(_written(transcript, kinds, (match.span() for match in _SPACED_WORD.finditer(kinds))))


class _Table(dict[int, str]):
    """A translation table that is filled on demand."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, point: int) -> str:
        self[point] = found = self._rule(chr(point))
        return found


def _kind(char: str) -> str:
    category = unicodedata.category(char)
    if category[0] in "LN":
        return _IDEOGRAPH if _CJK.match(char) else _LETTER
    if char == "'":
        return _APOSTROPHE
    if category[0] == "M":
        return _MARK
    if category == "Cf":
        return _FORMAT
    return _SPACE if char.isspace() else _OTHER


def _shown(text: str, kinds: str) -> str:
    return "".join(compress(text, map(_SHOWN.__contains__, kinds)))


def _with_marks(end: int, kinds: str) -> int:
    marks = _MARKS.match(kinds, end)
    return marks.end() if marks else end


def _written(transcript: str, kinds: str, parts: Iterator[_Span]) -> Iterator[Token]:
    for left, right in parts:
        if core := _LETTERS.search(kinds, left, right) or _APOSTROPHES.search(kinds, left, right):
            start, end = core.start(), _with_marks(core.end(), kinds)
            yield Token(transcript[start:end], start, end, (_shown(transcript[left:right], kinds[left:right]),))


def _korean(transcript: str) -> Iterator[_Span]:
    """Between spaces, the longest stem in the dictionary and the rest.

    Equal to soynlp's LTokenizer with all scores 1, which is not used because it copies a segment once for each of its
    characters: 200,000 without a space would take 80 GB.
    """
    stems, longest = korean_stems()
    for segment in _SEGMENT.finditer(transcript):
        start, end = segment.span()
        lengths = range(min(end - start, longest), 1, -1)
        cut = next((start + length for length in lengths if transcript[start : start + length] in stems), end)
        yield start, cut
        yield cut, end


@lru_cache(maxsize=1)
def korean_stems() -> tuple[frozenset[str], int]:
    """Qwen's Korean dictionary and the length of its longest word. Raises ModuleNotFoundError without qwen-asr."""
    package = find_spec("qwen_asr")  # finds the package without running it
    if package is None or package.origin is None:
        raise ModuleNotFoundError("qwen_asr is not installed", name="qwen_asr")
    path = Path(package.origin).parent / "inference" / "assets" / "korean_dict_jieba.dict"
    stems = frozenset(line.split()[0] for line in path.read_text(encoding="utf-8").split("\n") if line.strip())
    return stems, max(map(len, stems))


def _japanese(transcript: str, kinds: str) -> Iterator[Token]:
    with _nagisa_lock:
        words: list[str] = load_nagisa().wakati(transcript)
    starts, ends = _origins(transcript, words)
    table = _Table(_kind)
    taken = begin = 0
    for word in words:
        word_kinds = word.translate(table)
        places = range(begin, begin + len(word))
        begin += len(word)
        shown = list(compress(places, (kind in "ac" for kind in word_kinds))) or list(
            compress(places, (kind == _APOSTROPHE for kind in word_kinds))
        )
        if not shown:
            continue
        # A character that two words share belongs to the first, unless the second has no other.
        own = [place for place in shown if starts[place] >= taken] or shown
        start, end = starts[own[0]], _with_marks(ends[own[-1]], kinds)
        taken = end
        yield Token(transcript[start:end], start, end, (_shown(word, word_kinds),))


def load_nagisa() -> ModuleType:
    """Import nagisa, which only Japanese needs: nearly two seconds and 150 MB the first time.

    In a thread of its own: dynet is compiled with -ffast-math, and the thread that loads it rounds subnormal numbers to zero
    from then on (https://simonbyrne.github.io/notes/fastmath). Call this before importing qwen_asr, which imports nagisa.
    """
    loaded = sys.modules.get("nagisa")
    if loaded is None:
        with ThreadPoolExecutor(1) as loader:
            loaded = loader.submit(import_module, "nagisa").result()
    return loaded


def _origins(transcript: str, words: list[str]) -> tuple[list[int], list[int]]:
    """Where in the transcript the origin of each character of the joined `words` starts and ends."""
    normalised, starts, ends = normalise(transcript)
    cut = "".join(words)
    if normalised.startswith(cut):
        return starts, ends
    # Only reached if another version of nagisa normalises differently: an approximate place beats a failed call.
    spread = [place * len(transcript) // len(cut) for place in range(len(cut))]
    return spread, [place + 1 for place in spread]


def normalise(transcript: str) -> tuple[str, list[int], list[int]]:
    """The text as nagisa normalises it, and where in the transcript the origin of each of its characters starts and ends.

    It is NFKC and may be longer or shorter. Normalising cluster by cluster gives the same text as normalising at once, because
    nothing composes across the edge of a cluster.
    """
    normalised: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for cluster in _CLUSTER.finditer(transcript.translate(_Table(_attachment))):
        start, end = cluster.span()
        piece = unicodedata.normalize("NFKC", transcript[start:end]).replace("İ", "I").replace(" ", "\u3000")
        normalised.append(piece)
        starts += [start] * len(piece)
        ends += [end] * len(piece)
    return "".join(normalised), starts, ends


def _attachment(char: str) -> str:
    """`+` for a character that may combine with the one before it: marks, and the vowels and finals of Hangul syllables."""
    first = unicodedata.normalize("NFKD", char)[0]
    return "+" if unicodedata.category(first)[0] == "M" or "\u1160" <= first <= "\u11ff" else "-"
