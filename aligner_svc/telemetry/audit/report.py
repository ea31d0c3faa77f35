"""Reading the audit log again: which events, and in sum who failed, from where and how often."""

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
"""Bytes; the log's own are shorter, and a file without line ends must not fill the memory."""
MAX_VALUES = 50_000
"""Distinct values of a kind that a summary counts one by one."""
KINDS = ("event", "check", "principal", "peer")
"""What a summary counts by; "peer" is an address without its port."""

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
    """One line: its time, and everything in it by name."""

    time: datetime
    fields: dict[str, Any]

    def text(self, name: str) -> str:
        """A field as text, empty where there is none."""
        return str(self.fields.get(name, ""))


@dataclass(slots=True)
class AuditReading:
    """The entries of files, oldest file first, one at a time: a log is larger than the memory. To be iterated once."""

    files: Sequence[Path | None]
    """None: stdin."""
    unreadable: int = 0
    """Lines that are no events, so far."""

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
    """The event in a line; None if it is none. A time without zone is UTC."""
    try:
        fields = _json(line)
        time = datetime.fromisoformat(fields["time"])
        if not isinstance(fields["event"], str):
            return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return Entry(time if time.tzinfo is not None else time.replace(tzinfo=UTC), fields)


def with_rotated(file: Path) -> list[Path]:
    """The file and what it was before its rotations: FILE.2.gz, FILE.1, FILE; or FILE-20260131.xz, FILE. Oldest first.

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
    """Which entries are wanted; what is empty does not matter. In `principals` and `methods` a * is any text."""

    events: frozenset[str] = frozenset()
    checks: frozenset[str] = frozenset()
    principals: Sequence[str] = ()
    methods: Sequence[str] = ()
    peers: Sequence[Network] = ()
    since: datetime | None = None
    until: datetime | None = None

    def filter(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The wanted ones, in their order."""
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
    """How often, and when for the first and the last time."""

    times: int
    first: datetime
    last: datetime

    def add(self, time: datetime) -> None:
        """One more."""
        self.times += 1
        if time > self.last:
            self.last = time
        elif time < self.first:
            self.first = time


@dataclass(slots=True)
class Tally:
    """Counts by value. Of the first MOST_VALUES: attackers have many addresses."""

    counts: dict[tuple[str, ...], Count] = field(default_factory=dict)
    uncounted: int = 0
    """Entries whose value came when there were too many."""

    def add(self, value: tuple[str, ...], time: datetime) -> None:
        """One more of `value`."""
        count = self.counts.get(value)
        if count is not None:
            count.add(time)
        elif len(self.counts) < MAX_VALUES:
            self.counts[value] = Count(1, time, time)
        else:
            self.uncounted += 1

    def top(self, most: int) -> list[tuple[tuple[str, ...], Count]]:
        """The most frequent first, then the latest."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1].times, -item[1].last.timestamp(), item[0]))
        return ordered[:most]


@dataclass(slots=True)
class Summary:
    """What a reviewer looks at first."""

    total: Count | None
    by: dict[str, Tally]
    """One of KINDS: its values; entries that lack it are not in it."""
    together: Tally
    """All of KINDS at once: who failed, at what, from where. Empty text for what an entry lacks."""


def summarise(entries: Iterable[Entry]) -> Summary:
    """Counts the entries."""
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
    """The address in what gRPC calls a peer: "ipv4:192.0.2.1:4711", "ipv6:%5B2001:db8::1%5D:4711"; others as they are."""
    family, _, rest = unquote(peer).partition(":")
    if family not in {"ipv4", "ipv6"}:
        return peer
    host = rest.rpartition(":")[0] or rest
    return host.removeprefix("[").removesuffix("]")


def network(text: str) -> Network:
    """An address or, with its length, a network. Raises ValueError."""
    return ip_network(text.strip().removeprefix("[").removesuffix("]"), strict=False)


def moment(text: str, now: datetime) -> datetime:
    """RFC 3339, or a span before `now`: 90s, 30m, 24h, 7d, 2w. Without a zone it is UTC. Raises ValueError."""
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
    """2.5 times as fast as the standard library, on which a log of gigabytes takes minutes; but that reads every string."""
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
            # Lines are many and short; the unpackers are slow at handing them out one by one.
            yield io.BufferedReader(_PACKED[file.suffix](raw), 1 << 20)
        except (EOFError, lzma.LZMAError, OSError, zlib.error):
            raise OSError(errno.EIO, f"broken or incomplete {file.suffix} file", str(file)) from None


def _skip_line(lines: IO[bytes]) -> None:
    while (more := lines.readline(MAX_LINE)) and not more.endswith(b"\n"):
        pass
