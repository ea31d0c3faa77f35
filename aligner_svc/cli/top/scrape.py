"""What a server's metrics endpoint said at one time, and what happened between two."""

from __future__ import annotations

import math
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

LARGEST = 16 << 20
"""Bytes of an answer that are taken. A server's own has 50 to 200 KB."""

Labels: TypeAlias = Mapping[str, str]


class ScrapeError(Exception):
    """There is no answer that could be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """One answer. `at` in seconds, by any clock that goes on."""

    at: float
    samples: Mapping[str, list[tuple[Labels, float]]] = field(repr=False)

    def values(self, name: str, **labels: str) -> list[tuple[Labels, float]]:
        """The series of that name that have these labels; none where the server has no such metric."""
        return [one for one in self.samples.get(name, ()) if all(one[0].get(key) == value for key, value in labels.items())]

    def total(self, name: str, **labels: str) -> float | None:
        """Of all of these together; None where there are none."""
        found = self.values(name, **labels)
        return sum(value for _, value in found) if found else None

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Totals by the values of one label."""
        totals: dict[str, float] = {}
        for found, value in self.values(name, **labels):
            key = found.get(label, "")
            totals[key] = totals.get(key, 0.0) + value
        return totals


@dataclass(frozen=True, slots=True)
class Interval:
    """From one scrape to the next of the same process; `before` None where there was none."""

    before: Scrape | None
    after: Scrape

    @property
    def seconds(self) -> float:
        """Between the two; 0 where there is only one."""
        return 0.0 if self.before is None else self.after.at - self.before.at

    @classmethod
    def between(cls, before: Scrape | None, after: Scrape) -> Interval:
        """A server that was started again counts from 0: what was before it says nothing of it."""
        name = "process_start_time_seconds"
        same = before is not None and before.at < after.at and before.total(name) == after.total(name)
        return cls(before if same else None, after)

    def rate(self, name: str, **labels: str) -> float | None:
        """Of counters, each second; None where it cannot be told."""
        after = self.after.total(name, **labels)
        if after is None or self.before is None:
            return None
        grown = after - (self.before.total(name, **labels) or 0.0)
        return grown / self.seconds if grown >= 0 else None

    def rates(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """By the values of one label, what grew alone, most first."""
        if self.before is None:
            return {}
        before = self.before.by(name, label, **labels)
        grown = {
            key: (value - before.get(key, 0.0)) / self.seconds for key, value in self.after.by(name, label, **labels).items()
        }
        return dict(sorted(((key, value) for key, value in grown.items() if value > 0), key=lambda item: (-item[1], item[0])))

    def quantile(self, name: str, share: float, **labels: str) -> float | None:
        """Of what a histogram observed in the interval, as Prometheus' histogram_quantile has it; inf: beyond the last bucket."""
        if self.before is None:
            return None
        after, before = (scrape.by(f"{name}_bucket", "le", **labels) for scrape in (self.after, self.before))
        buckets = sorted((float(le), count - before.get(le, 0.0)) for le, count in after.items())
        total = buckets[-1][1] if buckets else 0.0
        if total <= 0:
            return None
        rank, lower, below = share * total, 0.0, 0.0
        for upper, count in buckets:
            if count >= rank:
                if math.isinf(upper):
                    return math.inf
                inside = count - below
                return lower + (upper - lower) * ((rank - below) / inside if inside > 0 else 1.0)
            lower, below = upper, count
        return None

    def mean(self, name: str, **labels: str) -> float | None:
        """Of a histogram's observations in the interval."""
        total, count = self.rate(f"{name}_sum", **labels), self.rate(f"{name}_count", **labels)
        return total / count if total is not None and count else None


def parse(text: str, at: float) -> Scrape:
    """Prometheus' text format. Raises ScrapeError."""
    samples: dict[str, list[tuple[Labels, float]]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    except (ValueError, KeyError, IndexError):
        raise ScrapeError("what answers there are no metrics in Prometheus' text format") from None
    if not samples:
        raise ScrapeError("there are no metrics in the answer")
    return Scrape(at, samples)


def fetch(url: str, timeout: float) -> str:
    """GET, within `timeout` seconds. Raises ScrapeError."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ScrapeError("an http or https URL is needed")
    if "@" in parts.netloc:
        raise ScrapeError("a URL with a user or a password is not taken: it would be seen in `ps`")
    # No proxy of the environment: what is asked is this machine, or one next to it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Accept": "text/plain;version=0.0.4"})  # noqa: S310 - the scheme is checked
    try:
        with opener.open(request, timeout=timeout) as response:
            raw: bytes = response.read(LARGEST + 1)
    except urllib.error.HTTPError as error:
        raise ScrapeError(f"it answered {error.code} {error.reason}") from None
    except (TimeoutError, urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        why = "no answer in time" if isinstance(reason, TimeoutError) else getattr(reason, "strerror", None) or "no HTTP"
        raise ScrapeError(str(why).lower()) from None
    if len(raw) > LARGEST:
        raise ScrapeError(f"the answer has more than {LARGEST >> 20} MiB")
    return raw.decode("utf-8", "replace")
