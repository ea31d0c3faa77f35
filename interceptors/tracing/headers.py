"""The trace a client's call belongs to, from W3C and B3 headers.

https://www.w3.org/TR/trace-context/ and https://github.com/openzipkin/b3-propagation. A malformed header is ignored; a call is
never refused for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Format: TypeAlias = Literal["tracecontext", "b3", "b3multi"]
Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MAX_CHARACTERS = 512
"""Of a tracestate, which has to be passed on up to that length; more than enough for a traceparent of a later version."""
_B3_TRACE = re.compile(r"[0-9a-f]{16}|[0-9a-f]{32}")
_B3_SPAN = re.compile(r"[0-9a-f]{16}")
_B3_SAMPLED = {"1": True, "true": True, "d": True, "0": False, "false": False}
_HEADERS: dict[Format, tuple[str, ...]] = {
    "tracecontext": ("traceparent", "tracestate"),
    "b3": ("b3",),
    "b3multi": ("x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags"),
}


@dataclass(frozen=True, slots=True)
class Parent:
    """The client's span. Both ids are 0 if the client (B3) only decides whether the call is sampled."""

    trace_id: int
    span_id: int
    sampled: bool | None
    """None: the client leaves the decision to this server."""
    state: str = ""
    """The tracestate as received."""


class TraceHeaders:
    """Reads the headers of `formats`; the first format found is used."""

    def __init__(self, formats: Sequence[Format]) -> None:
        self._formats = tuple(formats)
        self._wanted = frozenset(name for one in formats for name in _HEADERS[one])

    def parent(self, metadata: Metadata | None) -> Parent | None:
        """None: the call begins a new trace."""
        found: dict[str, list[str]] = {}
        for name, value in metadata or ():
            if name in self._wanted and isinstance(value, str):
                found.setdefault(name, []).append(value)
        if not found:
            return None
        for one in self._formats:
            parent = _READ[one](found)
            if parent is not None:
                return parent
        return None


def _tracecontext(found: Mapping[str, Sequence[str]]) -> Parent | None:
    given = found.get("traceparent", ())
    if len(given) != 1 or len(given[0]) > _MAX_CHARACTERS:  # of several it is unknown which is right
        return None
    match = _TRACEPARENT.fullmatch(given[0].strip(" \t"))
    if match is None:
        return None
    version, trace, span, flags, more = match.groups()
    if version == "ff" or (version == "00" and more):
        return None
    state = ",".join(found.get("tracestate", ()))
    return _parent(trace, span, bool(int(flags, 16) & 1), state if len(state) <= _MAX_CHARACTERS else "")


def _b3(found: Mapping[str, Sequence[str]]) -> Parent | None:
    given = found.get("b3", ())
    if len(given) != 1:
        return None
    if given[0] in _B3_SAMPLED:
        return Parent(0, 0, _B3_SAMPLED[given[0]])
    parts = given[0].split("-")
    if not 2 <= len(parts) <= 4:  # the fourth is the client's own parent, which is not used
        return None
    sampled = _B3_SAMPLED.get(parts[2]) if len(parts) > 2 else None
    return _b3_parent(parts[0], parts[1], sampled)


def _b3multi(found: Mapping[str, Sequence[str]]) -> Parent | None:
    def only(name: str) -> str:
        given = found.get(name, ())
        return given[0] if len(given) == 1 else ""

    sampled = True if only("x-b3-flags") == "1" else _B3_SAMPLED.get(only("x-b3-sampled").lower())
    parent = _b3_parent(only("x-b3-traceid"), only("x-b3-spanid"), sampled)
    return Parent(0, 0, sampled) if parent is None and sampled is not None else parent


def _b3_parent(trace: str, span: str, sampled: bool | None) -> Parent | None:
    trace, span = trace.lower(), span.lower()
    if _B3_TRACE.fullmatch(trace) is None or _B3_SPAN.fullmatch(span) is None:
        return None
    return _parent(trace, span, sampled)


def _parent(trace: str, span: str, sampled: bool | None, state: str = "") -> Parent | None:
    trace_id, span_id = int(trace, 16), int(span, 16)
    return Parent(trace_id, span_id, sampled, state) if trace_id and span_id else None


_READ = {"tracecontext": _tracecontext, "b3": _b3, "b3multi": _b3multi}
