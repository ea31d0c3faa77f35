"""TOML files of rules, and errors that name the file, the line and what to do about it."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_BYTES = 256 << 10
"""Of a file, some 4000 principals: it is parsed between two calls, which takes 0.1 s at that size."""

_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class RulesError(Exception):
    """Rules that cannot be used: "FILE, line N: what; what to do"."""


def read_text(path: Path) -> str:
    """Raises RulesError for a file that cannot be read, is larger than MAX_BYTES or is not UTF-8."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or "input/output error").lower()
        raise RulesError(f"{path}: cannot be read: {reason}; make it a file that the server may read") from None
    if len(raw) > MAX_BYTES:
        raise RulesError(f"{path}: larger than {MAX_BYTES >> 10} KiB; replace names of principals by patterns")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise RulesError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None


@dataclass(frozen=True, slots=True)
class TomlText:
    """The parsed tables, and the text, in which the lines of faults are found."""

    source: str
    text: str
    tables: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str, source: str, tables: Collection[str]) -> TomlText:
        """`source` names the text in errors, `tables` are those it may have. Raises RulesError."""
        text = text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")  # a byte order mark, as some editors write
        try:
            found = cls(source, text, tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise _syntax_error(error, source, text) from None
        except RecursionError:
            raise RulesError(f"{source}: not valid TOML: nested too deeply; write tables and flat lists") from None
        for name in found.tables:
            found.check_known("table", name, tables, name)
        return found

    def table(self, name: str) -> Mapping[str, Any]:
        """The table, empty if it is not there. Raises RulesError if `name` is something else."""
        value = self.tables.get(name, {})
        if not isinstance(value, dict):
            raise self.error(name, what=f"{name} is not a table", do=f"begin it with [{name}]")
        return value

    def check_known(self, kind: str, name: str, known: Collection[str], *place: str) -> None:
        """Raises RulesError if `name` is not one of `known`. `kind`: what it names; `place` as for `error`."""
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            do = f"did you mean {quoted(near[0])}?" if near else f"use one of {', '.join(known)}"
            what = f"no such {kind}" if place[1:] == (name,) else f"no such {kind}: {quoted(name)}"
            raise self.error(*place, what=what, do=do)

    def error(self, table: str, key: str = "", value: str = "", *, what: str, do: str) -> RulesError:
        """At the line of the value, of the key or of the table, the first of these that is found."""
        line = self._line(table, key, value)
        place = f"{self.source}, line {line}" if line else self.source
        return RulesError(f"{place}: {quoted(key)}: {what}; {do}" if key else f"{place}: {what}; {do}")

    def _line(self, table: str, key: str, value: str) -> int | None:
        """Counted from 1; None where the text spells it in a way that is not searched for (escapes, inline tables)."""
        lines, name = self.text.split("\n"), re.escape(table)
        header = re.compile(rf"\s*\[+\s*[\"']?{name}[\"']?\s*[].]|\s*[\"']?{name}[\"']?\s*[=.]")
        start = next((number for number, line in enumerate(lines) if header.match(line)), None)
        if start is None or not key:
            return None if start is None else start + 1
        names = re.compile(rf"(\"{re.escape(key)}\"|'{re.escape(key)}'|(?<![\w-]){re.escape(key)})\s*=")
        at = next((number for number in range(start, len(lines)) if names.search(lines[number])), None)
        if at is None:
            return start + 1
        if value:
            spellings = (f'"{value}"', f"'{value}'")
            at = next((number for number in range(at, len(lines)) if any(text in lines[number] for text in spellings)), at)
        return at + 1


def quoted(name: str) -> str:
    """On one line and bounded: escapes in a TOML string can make any character."""
    return json.dumps(name if len(name) <= 200 else f"{name[:200]}...")


def _syntax_error(error: tomllib.TOMLDecodeError, source: str, text: str) -> RulesError:
    reason = str(error)
    found = _PLACE.search(reason)
    line = (int(found[1]) if found[1] else text.count("\n") + 1) if found else None
    reason = reason[: found.start()] if found else reason
    do = "write each name only once" if "overwrite" in reason else "write names with / . : * in quotes"
    return RulesError(f"{source}, line {line}: not valid TOML: {reason[:1].lower()}{reason[1:]}; {do}")
