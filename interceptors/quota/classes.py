"""How much each class of callers may use, and who is in which class.

A caller's class, the first of these that there is: the one given for its very name; the one of the pattern that fits it and
has the most characters beside its stars, of several of that length the one written first; `default`. Who has no name, where
nobody has to, is in `anonymous`, and where there is no such class in `default`.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal
from urllib.parse import unquote

from interceptors.calls.principal import Principal
from interceptors.quota.stores.base import Bucket, Charge, Slots
from interceptors.rules.patterns import pattern_test

Priority = Literal["low", "normal", "high"]

DEFAULT = "default"
ANONYMOUS = "anonymous"
REQUESTS = "requests_per_second"
AUDIO_MINUTE = "audio_seconds_per_minute"
AUDIO_DAY = "audio_seconds_per_day"
BYTES = "bytes_per_minute"
CALLS = "calls_in_flight"
STREAMS = "streams_in_flight"
MINUTE, DAY = 60.0, 86_400.0

BUILT_IN = """\
[classes.default]
requests_per_second = 20
burst = 100
audio_seconds_per_minute = 7200
audio_seconds_burst = 14400
audio_seconds_per_day = 864000
bytes_per_minute = 1073741824
calls_in_flight = 64
streams_in_flight = 16
priority = "normal"
"""
"""Where no file is named: enough for 120 people who speak without a pause, and for one recording of 4 hours at once."""

PEER = "peer:"
"""What subjects begin with who have no name. No principal's name does."""
_REMEMBERED = 4096
_SUMMARY = 400
"""Characters of a summary of changes: it stands in one line of a log."""


@dataclass(frozen=True, slots=True)
class QuotaClass:
    """What one caller of the class may use; None: as much as it likes. Quotas are named as their keys in the file."""

    name: str
    priority: Priority = "normal"
    """What overload lets go first: low."""
    requests: Bucket | None = None
    audio_minute: Bucket | None = None
    """Units are seconds of audio, as in `audio_day`."""
    audio_day: Bucket | None = None
    bytes: Bucket | None = None
    calls: Slots | None = None
    streams: Slots | None = None
    """Streams are calls as well."""

    def charges(
        self, *, requests: float | None = None, audio_seconds: float | None = None, size: float | None = None
    ) -> tuple[Charge, ...]:
        """What the store is asked for; `size` in bytes. None leaves a dimension out, 0 asks whether it is in debt."""
        costs = (
            (self.requests, requests),
            (self.audio_minute, audio_seconds),
            (self.audio_day, audio_seconds),
            (self.bytes, size),
        )
        return tuple(Charge(bucket, cost) for bucket, cost in costs if bucket is not None and cost is not None)

    def slots(self, *, stream: bool) -> tuple[Slots, ...]:
        """What a call holds while it goes on."""
        return tuple(slots for slots in (self.calls, self.streams if stream else None) if slots is not None)

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """All there are, to show what is left."""
        found = (self.requests, self.audio_minute, self.audio_day, self.bytes)
        return tuple(bucket for bucket in found if bucket is not None)


class QuotaClasses:
    """One version of the file. Never changes: a new one takes its place."""

    def __init__(self, classes: Mapping[str, QuotaClass], principals: Mapping[str, str], text: str) -> None:
        """What has been checked: `default` is there, and all classes that `principals` name; see classes_text.parse."""
        self.classes = dict(classes)
        self._principals = dict(principals)
        # Sorting keeps the order of the file among equals.
        patterns = sorted((name for name in principals if "*" in name), key=lambda name: -len(name.replace("*", "")))
        self._patterns: list[tuple[Callable[[str], object], str]] = [
            (pattern_test(pattern), principals[pattern]) for pattern in patterns
        ]
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:12]
        """How `sha256sum` of the file begins."""
        self._find: Callable[[str], QuotaClass] = lru_cache(_REMEMBERED)(self._found)

    def of(self, principal: Principal | None) -> QuotaClass:
        """The class of a caller; None: it has no name."""
        if principal is None:
            return self.classes.get(ANONYMOUS) or self.classes[DEFAULT]
        return self._find(principal.name)

    def of_subject(self, subject: str) -> QuotaClass:
        """The class of who is counted under that name, as `subject_of` makes it."""
        return self.of(None) if subject.startswith(PEER) else self._find(subject)

    def with_overrides(self, overrides: Mapping[str, str]) -> QuotaClasses:
        """These with `overrides`, class by name or pattern, over [principals]. All of those classes have to be there."""
        # Before the others: of patterns of one length the first holds.
        rest = {name: target for name, target in self._principals.items() if name not in overrides}
        merged = QuotaClasses(self.classes, {**overrides, **rest}, "")
        merged.fingerprint = self.fingerprint  # the file is the same
        return merged

    def changes_since(self, before: QuotaClasses) -> str:
        """What is other than in `before`, for a log line: "batch (burst 20 -> 40); +partner; principals: +key:* (batch)"."""
        summary = "; ".join(_differences(self, before)) or "no limit has changed"
        return summary if len(summary) <= _SUMMARY else f"{summary[: _SUMMARY - 4]} ..."

    @property
    def principals(self) -> Mapping[str, str]:
        """Class by name or pattern, as in the file."""
        return self._principals

    def _found(self, name: str) -> QuotaClass:
        exact = self._principals.get(name)
        if exact is not None:
            return self.classes[exact]
        return self.classes[next((target for fits, target in self._patterns if fits(name)), DEFAULT)]


def subject_of(principal: Principal | None, peer: str) -> str:
    """Who is counted: the principal's name, else the peer's host, `peer` being an address as gRPC writes it.

    An IPv6 host counts with its /64: whoever has one address of it has all of them.
    """
    if principal is not None:
        return principal.name
    kind, _, rest = peer.partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return f"{PEER}{kind or 'unknown'}"
    host = unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"{PEER}unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return f"{PEER}{address.ipv4_mapped}"
        return f"{PEER}{ipaddress.IPv6Network((address, 64), strict=False)}"
    return f"{PEER}{address}"


def limits(quota: QuotaClass) -> Iterator[tuple[str, str]]:
    """Names and amounts of what is limited, as the file has them, for people: ("burst", "20")."""
    per = {"requests": (1.0, "burst"), "audio_minute": (MINUTE, "audio_seconds_burst"), "bytes": (MINUTE, "bytes_burst")}
    for field in fields(quota):
        value = getattr(quota, field.name)
        if isinstance(value, Bucket):
            seconds, burst = per.get(field.name, (DAY, ""))
            yield value.name, f"{value.rate * seconds:.12g}"
            if burst:
                yield burst, f"{value.burst:.12g}"
        elif isinstance(value, Slots):
            yield value.name, str(value.most)
    yield "priority", quota.priority


def _differences(new: QuotaClasses, old: QuotaClasses) -> Iterator[str]:
    for name in sorted({*new.classes, *old.classes}):
        after, before = new.classes.get(name), old.classes.get(name)
        if before is None or after is None:
            yield f"+{name}" if before is None else f"-{name}"
        elif before != after:
            now, was = dict(limits(after)), dict(limits(before))
            changed = (key for key in {**was, **now} if was.get(key) != now.get(key))
            told = ", ".join(f"{key} {was.get(key, 'unlimited')} -> {now.get(key, 'unlimited')}" for key in changed)
            yield f"{name} ({told})"
    changed_rules = list(_rules(new.principals, old.principals))
    if changed_rules:
        yield f"principals: {', '.join(changed_rules)}"


def _rules(new: Mapping[str, str], old: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*new, *old}):
        after, before = new.get(name), old.get(name)
        if before is None:
            yield f"+{name} ({after})"
        elif after is None:
            yield f"-{name} ({before})"
        elif before != after:
            yield f"{name} ({before} -> {after})"
