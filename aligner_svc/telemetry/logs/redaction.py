"""What must not be read in a log: secrets by their form, and by the field they are in; a caller's transcript by what was said.

The last line of defence and not the first: whoever logs a secret has a bug. Every pattern takes time linear in the text,
is tried only where a word of it is there at all, and texts are cut: what a caller sends decides neither how long it takes
nor how much is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice, pairwise
from typing import Any

REDACTED = "[redacted]"

_LONGEST = 4096
"""Characters of a text that is no traceback."""
_MAX_TRACE = 16_384
_LOOKED_AT = 4 * _MAX_TRACE
"""Characters that are searched: a secret must not be cut in two by the other limits."""
_MAX_KEY = 128
_DEPTH, _ITEMS = 4, 64
"""Of values within values."""

_SECRET_FIELDS = frozenset({
    *("authorization", "proxy_authorization", "x_api_key", "api_key", "apikey", "cookie", "set_cookie", "dpop"),
    *("token", "access_token", "refresh_token", "id_token", "client_assertion", "bearer"),
    *("password", "passwd", "secret", "client_secret", "pepper", "private_key", "credentials"),
})  # fmt: skip
_CALLERS_FIELDS = frozenset({"transcript", "text", "words", "audio", "samples", "request", "body"})
"""What callers send; sizes and durations have other names."""

_HEADERS = ("authorization", "x-api-key", "x_api_key", "cookie", "dpop")
_ASSIGNED_HINTS = ("passw", "pwd", "secret", "pepper", "token", "api_key", "apikey", "assertion")
_NAMES = "|".join(_HEADERS)
_ASSIGNED = (
    "password|passwd|pwd|secret|client_secret|pepper|access_token|refresh_token|id_token|token|api_key|apikey|client_assertion"
)
# `authorization: Bearer abc`, `('authorization', 'Bearer abc')`, `"x-api-key": "abc"`, `authorization=abc`.
_HEADER = re.compile(
    rf"""(?i)((?:{_NAMES})["']?\s{{0,4}}[:=,]\s{{0,4}}(?:b(?=["']))?["']?)"""
    r"""(?:(?:bearer|basic|dpop|digest|negotiate|token|apikey)\s{1,4})?[^\s"',;)\]}]{1,8192}"""
)
_SCHEME = re.compile(r"(?i)\b((?:bearer|dpop)\s{1,4})[A-Za-z0-9._~+/=-]{8,8192}")
_BASIC = re.compile(
    r"\b((?i:basic)\s{1,4})(?=[A-Za-z+/]{0,64}[0-9=]|[a-z]{0,32}[A-Z][a-z]{1,32}[A-Z])[A-Za-z0-9+/]{6,8192}={0,2}"
)
# With = or as JSON: "token: expired" is a sentence.
_ASSIGNMENT = re.compile(
    rf"""(?i)((?<![a-z])(?:{_ASSIGNED})(?:["']\s{{0,4}}:\s{{0,4}}["']|["']?\s{{0,4}}=\s{{0,4}}["']?))[^\s"'&,;]+"""
)
# Base64 of {" begins so: a JWT, whole or cut, and what else is JSON in base64.
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_=-]*){0,4}")
# After // up to an @, and not an issuer's # and a subject with an @: with a password, else a name alone.
_USERINFO = re.compile(r"""(://)(?:[^\s:/@#?"']{0,256}:(?!\d{1,5}(?:[/?#]|$))[^\s"'<>]{0,512}|[^\s/@#?"']{1,256})@""")
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,32}PRIVATE KEY-----|\Z)", re.DOTALL)
_PEM_END = re.compile(r"-----END [A-Z0-9 ]{0,32}PRIVATE KEY-----")
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\\ \r\n")

_SUSPICIOUS = re.compile(
    "private key|authorization|api[-_]?key|cookie|dpop|x_api|bearer|basic|eyj|passw|pwd|secret|pepper|token|assertion"
)
"""In lower case, what any of them needs but for a URL with a name in it: most texts have none of it, and are done."""
_TOKEN = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+(?:['\u2019][^\W_]+)*")
"""Words; a character each where they are written without blanks."""
_CONCEALED_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class Concealed:
    """What a caller said. Its words are looked at when there is something to hide them from, which is rarely."""

    text: str

    def __repr__(self) -> str:
        return f"Concealed({len(self.text)} characters)"

    @cached_property
    def words(self) -> frozenset[str]:
        """Casefolded."""
        return frozenset(self._folded)

    @cached_property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """Of words that follow each other."""
        return frozenset(pairwise(self._folded))

    @cached_property
    def _folded(self) -> list[str]:
        return [word.casefold() for word in _TOKEN.findall(self.text[:_CONCEALED_CHARACTERS])]

    def hide(self, text: str) -> str:
        """`text` without what was said: two words of it in a row, and one that is quoted or stands for all that was said.

        A single word of a transcript is any word of the language; without those a message about memory would lose `memory`.
        """
        found = list(_TOKEN.finditer(text))
        folded = [match[0].casefold() for match in found]
        said = [False] * len(found)
        for index, pair in enumerate(pairwise(folded)):
            if pair in self.pairs:
                said[index] = said[index + 1] = True
        for index, match in enumerate(found):
            if folded[index] in self.words and (_quoted(text, match.start(), match.end()) or len(self.words) == 1):
                said[index] = True
        parts, end, hidden = [], 0, False
        for match, private in zip(found, said, strict=True):
            if not private:
                hidden = False
                continue
            if not hidden:
                parts += [text[end : match.start()], REDACTED]
            end, hidden = match.end(), True
        return "".join([*parts, text[end:]])


_concealed: ContextVar[Concealed | None] = ContextVar("concealed", default=None)


def conceal(text: str) -> None:
    """For the rest of this call and the tasks it starts: no traceback and no message logged in it repeats this transcript."""
    _concealed.set(Concealed(text))


def concealed() -> Concealed | None:
    """What is to be hidden from lines that are logged now."""
    return _concealed.get()


class Redactor:
    """`key_prefixes`: what the service's own API keys begin with."""

    def __init__(self, key_prefixes: Collection[str] = ("alk",)) -> None:
        keys = [
            (f"{prefix}_", re.compile(rf"{re.escape(prefix)}_[0-9A-Za-z]{{4,}}(?:_[0-9A-Za-z]*)?")) for prefix in key_prefixes
        ]
        self._prefixes = [start for start, _ in keys]
        # The test that most texts fail, the pattern, and what stays of it.
        self._rules: list[tuple[Callable[[str, str], bool], re.Pattern[str], str]] = [
            (lambda text, _: "PRIVATE KEY-----" in text, _PEM, REDACTED),
            (
                lambda _, low: any(name in low for name in ("authorization", "api-key", "x_api", "cookie", "dpop")),
                _HEADER,
                rf"\1{REDACTED}",
            ),
            (lambda _, low: "bearer" in low or "dpop" in low, _SCHEME, rf"\1{REDACTED}"),
            (lambda _, low: "basic" in low, _BASIC, rf"\1{REDACTED}"),
            (lambda text, _: "eyJ" in text, _JWT, REDACTED),
            *((lambda text, _, start=start: start in text, pattern, REDACTED) for start, pattern in keys),
            (lambda text, _: "://" in text and "@" in text, _USERINFO, rf"\1{REDACTED}@"),
            (
                lambda _, low: any(name in low for name in _ASSIGNED_HINTS),
                _ASSIGNMENT,
                rf"\1{REDACTED}",
            ),
        ]

    def text(self, text: str, *, private: Concealed | None = None, longest: int = _LONGEST) -> str:
        """Without what must not be read, and cut to `longest` characters; a text that goes on says so."""
        kept = text if len(text) <= _LOOKED_AT else _ends(text, _LOOKED_AT)
        low = kept.lower()
        if self._suspicious(kept, low):
            for concerns, pattern, instead in self._rules:
                if concerns(kept, low):
                    kept = pattern.sub(instead, kept)
            if "PRIVATE KEY-----" in kept:
                kept = _without_key_ends(kept)
        if private is not None:
            kept = private.hide(kept)
        return kept if len(kept) <= longest else _ends(kept, longest)

    def harmless(self, line: Mapping[str, Any]) -> bool:
        """Whether every field would be logged as it is: a test of all values at once, which most lines pass.

        Others are looked at field by field.
        """
        if not all(_is_plain(name) for name in line):
            return False
        texts: list[str] = []
        for value in line.values():
            if isinstance(value, str):
                texts.append(value)
            elif isinstance(value, dict):
                if not all(isinstance(key, str) and _is_plain(key) and isinstance(item, float) for key, item in value.items()):
                    return False
                texts += value
            elif value is not None and not isinstance(value, (int, float)):
                return False
        kept = "\n".join(texts)
        return len(kept) <= _LONGEST and not self._suspicious(kept, kept.lower())

    def _suspicious(self, text: str, low: str) -> bool:
        if _SUSPICIOUS.search(low) is not None or ("://" in text and "@" in text):
            return True
        return any(prefix in text for prefix in self._prefixes)

    def trace(self, text: str, *, private: Concealed | None = None) -> str:
        """A traceback: its end says most, its beginning where it came from."""
        return self.text(text, private=private, longest=_MAX_TRACE)

    def field(self, name: str, value: Any, *, depth: int = _DEPTH) -> Any:
        """The value of a field as it may be logged: plain JSON."""
        folded = name.lower().replace("-", "_")
        if value is None or isinstance(value, bool) or value == "":
            return value
        if folded in _SECRET_FIELDS:
            return REDACTED
        if isinstance(value, (int, float)):
            return value
        if folded in _CALLERS_FIELDS:
            return REDACTED
        return self.text(value) if isinstance(value, str) else self._whole(value, depth)

    def _whole(self, value: Any, depth: int) -> Any:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return f"[{len(value)} bytes]"
        if isinstance(value, (Mapping, list, tuple, set, frozenset)):
            return self._collection(value, depth) if depth else f"[{type(value).__name__} of {len(value)}]"
        try:
            return self.text(str(value))
        except Exception:  # whatever somebody's __str__ does, the line is written
            return f"[{type(value).__name__}]"

    def _collection(self, value: Mapping[Any, Any] | Collection[Any], depth: int) -> Any:
        if isinstance(value, Mapping):
            items = islice(value.items(), _ITEMS)
            return {self.text(str(key), longest=_MAX_KEY): self.field(str(key), item, depth=depth - 1) for key, item in items}
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):  # a header
            return [self.text(value[0]), self.field(value[0], value[1], depth=depth - 1)]
        return [self.field("", item, depth=depth - 1) for item in islice(value, _ITEMS)]


@lru_cache(1024)
def _is_plain(name: str) -> bool:
    """Whether what is in a field of this name may be logged where its form is harmless; that of most names is."""
    folded = name.lower().replace("-", "_")
    return len(name) <= _MAX_KEY and folded not in _SECRET_FIELDS and folded not in _CALLERS_FIELDS


def _without_key_ends(text: str) -> str:
    """Private keys whose beginning was cut off: from their end back, as far as it may be base64 in lines."""
    parts, done = [], 0
    for end in _PEM_END.finditer(text):
        cut = end.start()
        while cut > done and text[cut - 1] in _BASE64:
            cut -= 1
        parts += [text[done:cut], REDACTED]
        done = end.end()
    return "".join([*parts, text[done:]])


def _quoted(text: str, start: int, end: int) -> bool:
    quotes = "'\"`\u201c\u201d\u2018\u2019\u00ab\u00bb"
    return start > 0 and text[start - 1] in quotes and end < len(text) and text[end] in quotes


def _ends(text: str, longest: int) -> str:
    """Beginning and end, cut between lines where there are any: half a line may be half a secret, which no pattern knows."""
    head, tail = text[: longest // 4], text[-(longest - longest // 4) :]
    if "\n" in head and "\n" in tail:
        head, tail = head[: head.rindex("\n")], tail[tail.index("\n") :]
        return f"{head}\n[{len(text) - len(head) - len(tail)} characters left out]{tail}"
    return f"{text[:longest]}\N{HORIZONTAL ELLIPSIS}[{len(text) - longest} characters left out]"
