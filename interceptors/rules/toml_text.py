"""The policy as its author wrote it: TOML whose every fault is told with file, line and what to do."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

TABLES = ("methods", "principals", "scopes")
LONGEST = 256 << 10
"""Bytes of a policy, some 4000 principals: it is parsed between two calls, which takes 0.1 s then."""

_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class PolicyError(Exception):
    """A policy that cannot be used: "FILE, line N: what; what to do"."""


@dataclass(frozen=True, slots=True)
class PolicyText:
    """What was parsed, and the text, for the places of faults."""

    source: str
    text: str
    tables: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str, source: str) -> PolicyText:
        """Raises PolicyError for what is no TOML and for tables that mean nothing."""
        if len(text) > LONGEST:
            raise too_long(source)
        text = text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")  # a byte order mark, as some editors write
        try:
            found = cls(source, text, tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise _syntax_error(error, source, text) from None
        except RecursionError:
            raise PolicyError(f"{source}: not valid TOML: nested too deeply; lists of scopes are flat") from None
        for name in found.tables:
            if name not in TABLES:
                near = difflib.get_close_matches(name, TABLES, n=1)
                do = f"did you mean [{near[0]}]?" if near else "there are [methods], [principals] and [scopes]"
                raise found.error(name, what=f"no such table: {_quoted(name)}", do=do)
        return found

    def table(self, name: str, *, needed: bool = False) -> Mapping[str, Any]:
        """The table, empty where there is none. Raises PolicyError for what is no table, and for one `needed` and empty."""
        value = self.tables.get(name, {})
        if not isinstance(value, dict):
            raise self.error(name, what=f"{name} is no table", do=f"begin it with [{name}]")
        if needed and not value:
            raise self.error(name, what=f"[{name}] is empty, which denies every call", do="list what may be called")
        return value

    def scopes(self, table: str, key: str, known: Collection[str]) -> frozenset[str]:
        """The list of scopes that `key` is given. Raises PolicyError."""
        value = self.tables[table][key]
        if not isinstance(value, list) or not all(isinstance(scope, str) for scope in value):
            raise self.error(table, key, what="a list of scopes is needed", do='write it as ["align"]')
        for scope in value:
            self.check_known(table, key, scope, known)
            if value.count(scope) > 1:
                raise self.error(table, key, scope, what=f"{_quoted(scope)} stands there twice", do="remove one")
        return frozenset(value)

    def check_known(self, table: str, key: str, scope: str, known: Collection[str]) -> None:
        """Raises PolicyError for a scope that is not."""
        if scope not in known:
            near = difflib.get_close_matches(scope, sorted(known), n=1)
            do = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(sorted(known))}"
            raise self.error(table, key, scope, what=f"no such scope: {_quoted(scope)}", do=do)

    def error(self, table: str, key: str = "", value: str = "", *, what: str, do: str) -> PolicyError:
        """At the line of the value, of the key or of the table, as near as it is found."""
        line = _line_of(self.text, table, key, value)
        place = f"{self.source}, line {line}" if line else self.source
        return PolicyError(f"{place}: {_quoted(key)}: {what}; {do}" if key else f"{place}: {what}; {do}")


def too_long(source: str) -> PolicyError:
    """The error for more than LONGEST."""
    return PolicyError(f"{source}: larger than {LONGEST >> 10} KiB; grant by patterns, or by the credentials' own scopes")


def _syntax_error(error: tomllib.TOMLDecodeError, source: str, text: str) -> PolicyError:
    said = str(error)
    found = _PLACE.search(said)
    line = (int(found[1]) if found[1] else text.count("\n") + 1) if found else None
    said = said[: found.start()] if found else said
    do = "a name stands in one place alone" if "overwrite" in said else "names with / . : * are written in quotes"
    return PolicyError(f"{source}, line {line}: not valid TOML: {said[:1].lower()}{said[1:]}; {do}")


def _line_of(text: str, table: str, key: str, value: str) -> int | None:
    """Counted from 1; None where the text spells it in a way that is not looked for (escapes, inline tables)."""
    lines = text.split("\n")
    header = re.compile(r"\s*\[+\s*[\"']?" + re.escape(table) + r"[\"']?\s*[].]|\s*[\"']?" + re.escape(table) + r"[\"']?\s*[=.]")
    start = next((number for number, line in enumerate(lines) if header.match(line)), None)
    if start is None or not key:
        return None if start is None else start + 1
    names = re.compile(rf"(\"{re.escape(key)}\"|'{re.escape(key)}'|(?<![\w-]){re.escape(key)})\s*=")
    at = next((number for number in range(start, len(lines)) if names.search(lines[number])), None)
    if at is None:
        return start + 1
    if value:
        quoted = (f'"{value}"', f"'{value}'")
        at = next((number for number in range(at, len(lines)) if any(name in lines[number] for name in quoted)), at)
    return at + 1


def _quoted(name: str) -> str:
    """As it may stand in a line: escapes in a TOML string can make any character."""
    return json.dumps(name if len(name) <= 200 else f"{name[:200]}...")
