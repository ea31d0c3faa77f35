"""Scrapes of a server's metrics endpoint, and rates and quantiles between two of them."""

from __future__ import annotations

import math
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

MAX_BYTES = 16 << 20
"""The largest answer that is read. A server's has 50 to 200 KB."""

Labels: TypeAlias = Mapping[str, str]


class ScrapeError(Exception):
    """There is no usable answer; the message says why."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """One answer. `at` is in seconds of any monotonic clock."""

    at: float
    samples: Mapping[str, list[tuple[Labels, float]]] = field(repr=False)

    def values(self, name: str, **labels: str) -> list[tuple[Labels, float]]:
        """The labels and values of the series with that name and these labels; empty if the server has none."""
        return [one for one in self.samples.get(name, ()) if all(one[0].get(key) == value for key, value in labels.items())]

    def total(self, name: str, **labels: str) -> float | None:
        """The sum of `values`; None if there are none."""
        found = self.values(name, **labels)
        return sum(value for _, value in found) if found else None

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """The sums of `values` by the values of one label."""
        totals: dict[str, float] = {}
        for found, value in self.values(name, **labels):
            key = found.get(label, "")
            totals[key] = totals.get(key, 0.0) + value
        return totals


@dataclass(frozen=True, slots=True)
class Interval:
    """From one scrape to the next of the same process; `before` is None if there is no earlier one."""

    before: Scrape | None
    after: Scrape

    @property
    def seconds(self) -> float:
        """Time between the two scrapes; 0 if there is only one."""
        return 0.0 if self.before is None else self.after.at - self.before.at

    @classmethod
    def between(cls, before: Scrape | None, after: Scrape) -> Interval:
        """Ignore `before` if the server was restarted since: its counters began again at 0."""
        name = "process_start_time_seconds"
        same = before is not None and before.at < after.at and before.total(name) == after.total(name)
        return cls(before if same else None, after)

    def rate(self, name: str, **labels: str) -> float | None:
        """The increase of counters per second; None if unknown."""
        after = self.after.total(name, **labels)
        if after is None or self.before is None:
            return None
        grown = after - (self.before.total(name, **labels) or 0.0)
        return grown / self.seconds if grown >= 0 else None

    def rates(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """The rates above 0 by the values of one label, the highest first."""
        if self.before is None:
            return {}
        before, after = self.before.by(name, label, **labels), self.after.by(name, label, **labels)
        rates = {key: (value - before.get(key, 0.0)) / self.seconds for key, value in after.items()}
        return dict(sorted(((key, rate) for key, rate in rates.items() if rate > 0), key=lambda item: (-item[1], item[0])))

    def quantile(self, name: str, share: float, **labels: str) -> float | None:
        """A quantile of a histogram's observations, as Prometheus' histogram_quantile computes it; inf beyond the last bucket."""
        if self.before is None:
            return None
        after, before = (one.by(f"{name}_bucket", "le", **labels) for one in (self.after, self.before))
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
        """The mean of a histogram's observations."""
        total, count = self.rate(f"{name}_sum", **labels), self.rate(f"{name}_count", **labels)
        return total / count if total is not None and count else None


def scrape(url: str, timeout: float) -> Scrape:
    """Fetch and parse the metrics within `timeout` seconds. Raises ScrapeError."""
    return parse(fetch(url, timeout), time.monotonic())


def parse(text: str, at: float) -> Scrape:
    """Parse Prometheus' text format. Raises ScrapeError."""
    samples: dict[str, list[tuple[Labels, float]]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    except (ValueError, KeyError, IndexError):
        raise ScrapeError("the answer is not in Prometheus' text format") from None
    if not samples:
        raise ScrapeError("the answer holds no metrics")
    return Scrape(at, samples)


def fetch(url: str, timeout: float) -> str:
    """GET the URL within `timeout` seconds. Raises ScrapeError."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ScrapeError("an http or https URL is needed")
    if "@" in parts.netloc:
        raise ScrapeError("a URL with a user or a password is refused: other users could read it with `ps`")
    # Without the proxies of the environment: the server is on this machine or near it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Accept": "text/plain;version=0.0.4"})  # noqa: S310 - the scheme is checked
    try:
        with opener.open(request, timeout=timeout) as response:
            raw: bytes = response.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise ScrapeError(f"the answer is {error.code} {error.reason}") from None
    except (TimeoutError, urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise ScrapeError(f"no answer within {timeout:g} s") from None
        raise ScrapeError((getattr(reason, "strerror", None) or "not HTTP").lower()) from None
    if len(raw) > MAX_BYTES:
        raise ScrapeError(f"the answer is larger than {MAX_BYTES >> 20} MiB")
    return raw.decode("utf-8", "replace")
