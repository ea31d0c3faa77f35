"""How much each class of callers may use, and which class a caller is in.

The class of a principal is the first of these that exists: the one given for its exact name; the one of the pattern that fits
and has the most characters beside its stars, of several of one length the first one written; `default`. A caller without a
principal is in `anonymous` if that class exists, else in `default`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal

from interceptors.calls.principal import Principal
from interceptors.calls.subject import PEER
from interceptors.quota.stores.base import Bucket, Charge, Slots
from interceptors.rules.changes import changed_rules, summary
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
"""In force if no file is named: enough for 120 people who speak without a pause, and for one recording of 4 hours at once."""

_MAX_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class QuotaClass:
    """What one caller of the class may use; None: no limit. Quotas are named as their keys in the file."""

    name: str
    priority: Priority = "normal"
    """Under overload `low` is refused first."""
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
        """For the store; `size` in bytes. None leaves a dimension out, 0 checks for debt."""
        costs = (
            (self.requests, requests),
            (self.audio_minute, audio_seconds),
            (self.audio_day, audio_seconds),
            (self.bytes, size),
        )
        return tuple(Charge(bucket, cost) for bucket, cost in costs if bucket is not None and cost is not None)

    def slots(self, *, stream: bool) -> tuple[Slots, ...]:
        """Those a call holds until it ends."""
        return tuple(slots for slots in (self.calls, self.streams if stream else None) if slots is not None)

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """All that are limited."""
        found = (self.requests, self.audio_minute, self.audio_day, self.bytes)
        return tuple(bucket for bucket in found if bucket is not None)


class QuotaClasses:
    """One version of the file. Never changes: a new one takes its place."""

    def __init__(self, classes: Mapping[str, QuotaClass], principals: Mapping[str, str]) -> None:
        """Checked by classes_text.parse: `default` exists, and so do all classes that `principals` name."""
        self.classes = dict(classes)
        self.principals = dict(principals)
        """Class by name or pattern, as in the file."""
        # Sorting keeps the file's order among patterns of one length.
        patterns = sorted((name for name in principals if "*" in name), key=lambda name: -len(name.replace("*", "")))
        self._patterns: list[tuple[Callable[[str], object], str]] = [
            (pattern_test(pattern), principals[pattern]) for pattern in patterns
        ]
        self._find: Callable[[str], QuotaClass] = lru_cache(_MAX_REMEMBERED)(self._found)

    def of(self, principal: Principal | None) -> QuotaClass:
        """The class of a caller; None: it was not authenticated."""
        if principal is None:
            return self.classes.get(ANONYMOUS) or self.classes[DEFAULT]
        return self._find(principal.name)

    def of_subject(self, subject: str) -> QuotaClass:
        """The class of a subject, as `subject_of` names it."""
        return self.of(None) if subject.startswith(PEER) else self._find(subject)

    def with_overrides(self, overrides: Mapping[str, str]) -> QuotaClasses:
        """With `overrides`, class by name or pattern, in place of [principals]. All of their classes have to exist."""
        # Before the others: of patterns of one length the first one applies.
        rest = {name: target for name, target in self.principals.items() if name not in overrides}
        return QuotaClasses(self.classes, {**overrides, **rest})

    def changes_since(self, before: QuotaClasses) -> str:
        """For a log line: "batch (burst 20 -> 40); +partner; principals: +key:* (batch)"."""
        principals = changed_rules("principals", self.principals, before.principals)
        return summary((*_changed_classes(self.classes, before.classes), *principals), "no limit has changed")

    def _found(self, name: str) -> QuotaClass:
        exact = self.principals.get(name)
        if exact is not None:
            return self.classes[exact]
        return self.classes[next((target for fits, target in self._patterns if fits(name)), DEFAULT)]


def limits(quota: QuotaClass) -> Iterator[tuple[str, str]]:
    """Keys and values as in the file, for people: ("burst", "20")."""
    per = {"requests": (1.0, "burst"), "audio_minute": (MINUTE, "audio_seconds_burst"), "bytes": (MINUTE, "bytes_burst")}
    for field in fields(quota):
        value = getattr(quota, field.name)
        if isinstance(value, Bucket):
            seconds, burst = per.get(field.name, (DAY, ""))
            yield value.name, f"{value.rate * seconds:.12g}"
            if burst:
                yield burst, f"{value.burst:.12g}"
        elif isinstance(value, Slots):
            yield value.name, str(value.limit)
    yield "priority", quota.priority


def _changed_classes(new: Mapping[str, QuotaClass], old: Mapping[str, QuotaClass]) -> Iterator[str]:
    for name in sorted({*new, *old}):
        if name not in old or name not in new:
            yield f"+{name}" if name in new else f"-{name}"
        elif old[name] != new[name]:
            now, was = dict(limits(new[name])), dict(limits(old[name]))
            changed = (key for key in {**was, **now} if was.get(key) != now.get(key))
            changes = ", ".join(f"{key} {was.get(key, 'unlimited')} -> {now.get(key, 'unlimited')}" for key in changed)
            yield f"{name} ({changes})"
