"""Redaction of log lines: secrets by their form or by the name of their field, and the caller's transcript by its words.

The last line of defence: code that logs a secret has a bug. Every pattern takes time linear in the text and is tried only
where one of its words occurs, and texts are cut: callers can make a line neither slow nor long.
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

_MAX_TEXT = 4096
"""Characters of a text other than a traceback."""
_MAX_TRACE = 16_384
_MAX_SEARCHED = 4 * _MAX_TRACE
"""Characters that are searched: more than the other limits, so that these do not cut a secret in two."""
_MAX_KEY = 128
_MAX_DEPTH, _MAX_ITEMS = 4, 64
"""Of nested values."""

_SECRET_FIELDS = frozenset({
    *("authorization", "proxy_authorization", "x_api_key", "api_key", "apikey", "cookie", "set_cookie", "dpop"),
    *("token", "access_token", "refresh_token", "id_token", "client_assertion", "bearer"),
    *("password", "passwd", "secret", "client_secret", "pepper", "private_key", "credentials"),
})  # fmt: skip
_CALLER_FIELDS = frozenset({"transcript", "text", "words", "audio", "samples", "request", "body"})
"""Content that callers send; sizes and durations have other names."""

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
# Base64 of {" begins so: a JWT, whole or cut, and other JSON in base64.
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_=-]*){0,4}")
# After // up to an @, with a password or a name alone; not an issuer, #, and a subject with an @.
_USERINFO = re.compile(r"""(://)(?:[^\s:/@#?"']{0,256}:(?!\d{1,5}(?:[/?#]|$))[^\s"'<>]{0,512}|[^\s/@#?"']{1,256})@""")
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,32}PRIVATE KEY-----|\Z)", re.DOTALL)
_PEM_END = re.compile(r"-----END [A-Z0-9 ]{0,32}PRIVATE KEY-----")
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\\ \r\n")

_SUSPICIOUS = re.compile(
    "private key|authorization|api[-_]?key|cookie|dpop|x_api|bearer|basic|eyj|passw|pwd|secret|pepper|token|assertion"
)
"""In lower case, a word that each of them needs, except a URL with a user name: most texts have none and are done."""
_TOKEN = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+(?:['\u2019][^\W_]+)*")
"""Words; single characters in scripts without spaces."""
_MAX_CONCEALED = 1_000_000
"""Characters."""


@dataclass(frozen=True)
class Concealed:
    """A transcript to hide. It is split into words only when a line needs it, which is rare."""

    text: str

    def __repr__(self) -> str:
        return f"Concealed({len(self.text)} characters)"

    @cached_property
    def words(self) -> frozenset[str]:
        """Casefolded."""
        return frozenset(self._folded)

    @cached_property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """Consecutive words."""
        return frozenset(pairwise(self._folded))

    @cached_property
    def _folded(self) -> list[str]:
        return [word.casefold() for word in _TOKEN.findall(self.text[:_MAX_CONCEALED])]

    def hide(self, text: str) -> str:
        """`text` without two consecutive words of the transcript, and without a single one in quotes or if it has only one.

        Other single words stay, for they may be any word of the language: a message about memory would lose `memory`.
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
        for match, was_said in zip(found, said, strict=True):
            if not was_said:
                hidden = False
                continue
            if not hidden:
                parts += [text[end : match.start()], REDACTED]
            end, hidden = match.end(), True
        return "".join([*parts, text[end:]])


_concealed: ContextVar[Concealed | None] = ContextVar("concealed", default=None)


def conceal(text: str) -> None:
    """Hide this transcript in every line logged for the rest of this call and in the tasks it starts."""
    _concealed.set(Concealed(text))


def concealed() -> Concealed | None:
    """The transcript to hide from lines logged now."""
    return _concealed.get()


class Redactor:
    """`key_prefixes`: prefixes of the service's own API keys."""

    def __init__(self, key_prefixes: Collection[str] = ("alk",)) -> None:
        keys = [
            (f"{prefix}_", re.compile(rf"{re.escape(prefix)}_[0-9A-Za-z]{{4,}}(?:_[0-9A-Za-z]*)?")) for prefix in key_prefixes
        ]
        self._prefixes = [start for start, _ in keys]
        # A cheap test that most texts fail, the pattern, its replacement.
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
            (lambda _, low: any(name in low for name in _ASSIGNED_HINTS), _ASSIGNMENT, rf"\1{REDACTED}"),
        ]

    def text(self, text: str, *, transcript: Concealed | None = None, limit: int = _MAX_TEXT) -> str:
        """Redacted, and cut to `limit` characters with a note of how many are missing."""
        kept = text if len(text) <= _MAX_SEARCHED else _ends(text, _MAX_SEARCHED)
        low = kept.lower()
        if self._suspicious(kept, low):
            for may_match, pattern, replacement in self._rules:
                if may_match(kept, low):
                    kept = pattern.sub(replacement, kept)
            if "PRIVATE KEY-----" in kept:
                kept = _without_key_ends(kept)
        if transcript is not None:
            kept = transcript.hide(kept)
        return kept if len(kept) <= limit else _ends(kept, limit)

    def harmless(self, line: Mapping[str, Any]) -> bool:
        """Whether every field can be logged as it is: one test of all values together, which most lines pass."""
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
        return len(kept) <= _MAX_TEXT and not self._suspicious(kept, kept.lower())

    def _suspicious(self, text: str, low: str) -> bool:
        if _SUSPICIOUS.search(low) is not None or ("://" in text and "@" in text):
            return True
        return any(prefix in text for prefix in self._prefixes)

    def trace(self, text: str, *, transcript: Concealed | None = None) -> str:
        """As `text`, with the limit for tracebacks."""
        return self.text(text, transcript=transcript, limit=_MAX_TRACE)

    def field(self, name: str, value: Any, *, depth: int = _MAX_DEPTH) -> Any:
        """The redacted value of a field, as plain JSON."""
        folded = name.lower().replace("-", "_")
        if value is None or isinstance(value, bool) or value == "":
            return value
        if folded in _SECRET_FIELDS:
            return REDACTED
        if isinstance(value, (int, float)):
            return value
        if folded in _CALLER_FIELDS:
            return REDACTED
        return self.text(value) if isinstance(value, str) else self._structure(value, depth)

    def _structure(self, value: Any, depth: int) -> Any:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return f"[{len(value)} bytes]"
        if isinstance(value, (Mapping, list, tuple, set, frozenset)):
            return self._collection(value, depth) if depth else f"[{type(value).__name__} of {len(value)}]"
        try:
            return self.text(str(value))
        except Exception:  # its __str__ fails; the line is written all the same
            return f"[{type(value).__name__}]"

    def _collection(self, value: Mapping[Any, Any] | Collection[Any], depth: int) -> Any:
        if isinstance(value, Mapping):
            items = islice(value.items(), _MAX_ITEMS)
            return {self.text(str(key), limit=_MAX_KEY): self.field(str(key), item, depth=depth - 1) for key, item in items}
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):  # a header
            return [self.text(value[0]), self.field(value[0], value[1], depth=depth - 1)]
        return [self.field("", item, depth=depth - 1) for item in islice(value, _MAX_ITEMS)]


@lru_cache(1024)
def _is_plain(name: str) -> bool:
    """Whether a field of this name may be logged if its value looks harmless."""
    folded = name.lower().replace("-", "_")
    return len(name) <= _MAX_KEY and folded not in _SECRET_FIELDS and folded not in _CALLER_FIELDS


def _without_key_ends(text: str) -> str:
    """Removes private keys whose beginning was cut off: from the end marker back over everything that may be base64."""
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


def _ends(text: str, limit: int) -> str:
    """Beginning and end of a traceback, cut between lines: half a line may be half a secret, which no pattern matches."""
    head, tail = text[: limit // 4], text[-(limit - limit // 4) :]
    if "\n" in head and "\n" in tail:
        head, tail = head[: head.rindex("\n")], tail[tail.index("\n") :]
        return f"{head}\n[{len(text) - len(head) - len(tail)} characters left out]{tail}"
    return f"{text[:limit]}\N{HORIZONTAL ELLIPSIS}[{len(text) - limit} characters left out]"
