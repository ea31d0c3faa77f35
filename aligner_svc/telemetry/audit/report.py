"""Reads the audit log: selected events, and a summary of who failed, from where and how often."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import json
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from pydantic_core import from_json

MAX_LINE = 1 << 16
"""Bytes; the log's own lines are shorter, and a file without line ends must not fill the memory."""
MAX_VALUES = 50_000
"""Distinct values of a kind that a summary counts."""
KINDS = ("event", "check", "principal", "peer")
"""The fields a summary counts by; "peer" is an address without its port."""

_PACKED: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".xz": lzma.LZMAFile,
    ".bz2": bz2.BZ2File,
}
_SPAN = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: its time, and all of its fields by name."""

    time: datetime
    fields: dict[str, Any]

    def text(self, name: str) -> str:
        """A field as text, "" if it is missing."""
        return str(self.fields.get(name, ""))


@dataclass(slots=True)
class AuditReading:
    """The entries of files, oldest file first, one at a time: a log may be larger than the memory. Iterate it once."""

    files: Sequence[Path | None]
    """None: stdin."""
    unreadable: int = 0
    """Lines so far that are not events."""

    def __iter__(self) -> Iterator[Entry]:
        """Raises OSError."""
        for file in self.files:
            with _opened(file) as lines:
                while line := lines.readline(MAX_LINE):
                    if line.endswith(b"\n") or len(line) < MAX_LINE:
                        entry = parse(line)
                    else:
                        entry = None
                        _skip_line(lines)
                    if entry is not None:
                        yield entry
                    elif line.strip():
                        self.unreadable += 1


def parse(line: bytes) -> Entry | None:
    """The event in a line, or None. A time without a zone is UTC."""
    try:
        fields = _json(line)
        time = datetime.fromisoformat(fields["time"])
        if not isinstance(fields["event"], str):
            return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return Entry(time if time.tzinfo is not None else time.replace(tzinfo=UTC), fields)


def with_rotated(file: Path) -> list[Path]:
    """The file and its rotated predecessors, oldest first: FILE.2.gz, FILE.1, FILE; or FILE-20260131.xz, FILE.

    Raises OSError where the directory cannot be read.
    """
    numbered, dated = [], []
    pattern = re.compile(re.escape(file.name) + r"(?:\.(\d{1,6})|-(\d{6,14}(?:-\d{1,10})?))(?:\.gz|\.xz|\.bz2)?")
    for sibling in file.parent.iterdir():
        found = pattern.fullmatch(sibling.name)
        if found and found[1]:
            numbered.append((-int(found[1]), sibling.name, sibling))
        elif found:
            dated.append((found[2], sibling.name, sibling))
    older = [path for *_, path in sorted(dated)] + [path for *_, path in sorted(numbered)]
    return [*older, file] if file.exists() or not older else older


@dataclass(frozen=True, slots=True)
class Selection:
    """Filters for entries; empty ones match everything. In `principals` and `methods` a * stands for any text."""

    events: frozenset[str] = frozenset()
    checks: frozenset[str] = frozenset()
    principals: Sequence[str] = ()
    methods: Sequence[str] = ()
    peers: Sequence[Network] = ()
    since: datetime | None = None
    until: datetime | None = None

    def filter(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The entries that match, in order."""
        return filter(self._test(), entries)

    def _test(self) -> Callable[[Entry], bool]:
        tests: list[Callable[[Entry], bool]] = []
        if (since := self.since) is not None:
            tests.append(lambda entry: entry.time >= since)
        if (until := self.until) is not None:
            tests.append(lambda entry: entry.time < until)
        if self.events:
            tests.append(lambda entry: entry.text("event") in self.events)
        if self.checks:
            tests.append(lambda entry: entry.text("check") in self.checks)
        for name, patterns in (("principal", self.principals), ("method", self.methods)):
            if patterns:
                tests.append(_matching(name, patterns))
        if self.peers:
            within = lru_cache(4096)(lambda peer: _within(peer, self.peers))
            tests.append(lambda entry: within(entry.text("peer")))
        return lambda entry: all(test(entry) for test in tests)


@dataclass(slots=True)
class Count:
    """A number of entries, and the times of the first and the last."""

    times: int
    first: datetime
    last: datetime

    def add(self, time: datetime) -> None:
        """Count one more."""
        self.times += 1
        if time > self.last:
            self.last = time
        elif time < self.first:
            self.first = time


@dataclass(slots=True)
class Tally:
    """Counts by value, for the first MAX_VALUES of them: attackers have many addresses."""

    counts: dict[tuple[str, ...], Count] = field(default_factory=dict)
    uncounted: int = 0
    """Entries with a value beyond these."""

    def add(self, value: tuple[str, ...], time: datetime) -> None:
        """Count one more entry with `value`."""
        count = self.counts.get(value)
        if count is not None:
            count.add(time)
        elif len(self.counts) < MAX_VALUES:
            self.counts[value] = Count(1, time, time)
        else:
            self.uncounted += 1

    def top(self, limit: int) -> list[tuple[tuple[str, ...], Count]]:
        """The `limit` most frequent values, the latest first among equals."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1].times, -item[1].last.timestamp(), item[0]))
        return ordered[:limit]


@dataclass(slots=True)
class Summary:
    """Counts of the entries of a log."""

    total: Count | None
    by: dict[str, Tally]
    """For each of KINDS, the values of the entries that have it."""
    together: Tally
    """Combinations of all KINDS: who failed, at what, from where; "" for what an entry lacks."""


def summarise(entries: Iterable[Entry]) -> Summary:
    """Count the entries."""
    summary = Summary(None, {kind: Tally() for kind in KINDS}, Tally())
    for entry in entries:
        values = tuple(host_of(entry.text(kind)) if kind == "peer" else entry.text(kind) for kind in KINDS)
        for kind, value in zip(KINDS, values, strict=True):
            if value:
                summary.by[kind].add((value,), entry.time)
        summary.together.add(values, entry.time)
        if summary.total is None:
            summary.total = Count(1, entry.time, entry.time)
        else:
            summary.total.add(entry.time)
    return summary


@lru_cache(4096)
def host_of(peer: str) -> str:
    """The address in a gRPC peer like "ipv4:192.0.2.1:4711" or "ipv6:%5B2001:db8::1%5D:4711"; any other text unchanged."""
    family, _, rest = unquote(peer).partition(":")
    if family not in {"ipv4", "ipv6"}:
        return peer
    host = rest.rpartition(":")[0] or rest
    return host.removeprefix("[").removesuffix("]")


def network(text: str) -> Network:
    """The network in CIDR notation, or that of one address. Raises ValueError."""
    return ip_network(text.strip().removeprefix("[").removesuffix("]"), strict=False)


def moment(text: str, now: datetime) -> datetime:
    """A time as RFC 3339, UTC without a zone, or as a span before `now`: 90s, 30m, 24h, 7d, 2w. Raises ValueError."""
    span = _SPAN.fullmatch(text.strip())
    if span is not None:
        try:
            return now - timedelta(**{_UNITS[span[2]]: int(span[1])})
        except OverflowError:
            raise ValueError("too long ago") from None
    time = datetime.fromisoformat(text.strip())
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _matching(name: str, patterns: Sequence[str]) -> Callable[[Entry], bool]:
    expression = "|".join(".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns)
    matches = re.compile(expression, re.DOTALL).fullmatch
    return lambda entry: matches(entry.text(name)) is not None


def _within(peer: str, networks: Sequence[Network]) -> bool:
    try:
        address: IPv4Address | IPv6Address = ip_address(host_of(peer))
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address.version == wanted.version and address in wanted for wanted in networks)


def _json(line: bytes) -> Any:
    """Pydantic's parser, 2.5 times as fast: a log may have gigabytes. The standard library's accepts strings it does not."""
    try:
        return from_json(line)
    except ValueError:
        return json.loads(line)


@contextmanager
def _opened(file: Path | None) -> Iterator[IO[bytes]]:
    if file is None:
        yield sys.stdin.buffer
        return
    with file.open("rb") as raw:
        if file.suffix not in _PACKED:
            yield raw
            return
        try:
            # The decompressors are slow at reading single lines.
            yield io.BufferedReader(_PACKED[file.suffix](raw), 1 << 20)
        except (EOFError, lzma.LZMAError, OSError, zlib.error):
            raise OSError(errno.EIO, f"broken or incomplete {file.suffix} file", str(file)) from None


def _skip_line(lines: IO[bytes]) -> None:
    while (more := lines.readline(MAX_LINE)) and not more.endswith(b"\n"):
        pass
