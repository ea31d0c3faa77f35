"""What is counted, and the interface of what counts it.

A bucket is full at first: `burst` units. Using takes out of it, time puts `rate` units a second back, never above `burst`.
So what is granted over any stretch of time is at most burst + rate x time, whatever the calls look like. The price of that
rule: a single cost above the burst is never granted, and is told so (`too_large`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


class StoreUnavailableError(Exception):
    """The store cannot answer now. The message says why, without addresses of secrets: it may be logged."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A quota that refills. `rate` in units a second, `burst` in units; what a unit is, `name` says."""

    name: str
    rate: float
    burst: float

    def __post_init__(self) -> None:
        if not (0 < self.rate < math.inf and 0 < self.burst < math.inf):
            raise ValueError(f"{self.name}: a rate and a burst above 0 are needed")


@dataclass(frozen=True, slots=True)
class Charge:
    """`cost` units of a bucket. A cost of 0 asks whether there is no debt."""

    bucket: Bucket
    cost: float


@dataclass(frozen=True, slots=True)
class Slots:
    """A quota of things that go on at the same time."""

    name: str
    most: int

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"{self.name}: at least 1 is needed")


@dataclass(frozen=True, slots=True)
class Left:
    """Granted. What is left of each quota that was asked for, in its units; below 0 is a debt."""

    remaining: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Spent:
    """Refused, and nothing was taken. `name` is the quota that stands in the way longest, `remaining` what is left of it.

    - "spent": the bucket has too little now; the same call will be granted `retry_after` seconds later if nothing else
      is taken meanwhile, and not before.
    - "too_large": it costs more than the bucket ever holds. `retry_after` is None.
    - "in_flight": all slots are taken. `retry_after` is None: it depends on when the caller's own calls end.
    """

    name: str
    remaining: float
    retry_after: float | None
    kind: Literal["spent", "too_large", "in_flight"] = "spent"


class QuotaStore(Protocol):
    """Counts by subject, which is a caller's name. Belongs to one event loop. Costs and rates are the caller's to have right.

    Every method but `start` and `close` may raise StoreAwayError, unless a store says that it does not.
    """

    async def start(self) -> None:
        """Begin what goes on beside the calls. Does not fail where the store is away."""

    async def close(self) -> None:
        """Idempotent."""

    async def take(self, subject: str, charges: Sequence[Charge], slots: Sequence[Slots], lease: str) -> Left | Spent:
        """All that a call needs, or none of it. `lease` is a name of the call that no other call has; `release` ends it."""

    async def charge(self, subject: str, charges: Sequence[Charge], lease: str) -> Left | Spent:
        """More for a call that is being served, as its bytes come in: all of it or none."""

    async def settle(self, subject: str, charges: Sequence[Charge], lease: str) -> None:
        """Put right what was charged to a call once its true cost is known.

        A cost below 0 is given back, never above the burst; one above 0 is taken whatever is left, and may leave a debt
        that later calls wait for.
        """

    async def release(self, subject: str, lease: str) -> None:
        """The call is over: its slots are free. To be called for every `take` that was granted; twice does no harm."""

    async def finish(self, subject: str, charges: Sequence[Charge], lease: str) -> None:
        """`settle` and `release` at once: a call's end should not take two round trips."""

    async def show(self, subject: str, buckets: Sequence[Bucket], slots: Sequence[Slots]) -> Left:
        """What is left, without taking any of it."""

    async def subjects(self, limit: int) -> Sequence[str]:
        """Names of subjects that something is known of, `limit` at most, in no order."""

    async def reset(self, subject: str) -> None:
        """Forget what the subject used: its buckets are full and its slots free."""


def retry_after(need: float, bucket: Bucket) -> float:
    """Seconds until `need` units have come back, rounded up so that floating point leaves none of it missing.

    A microsecond for the clocks (a double holds Unix time to 0.24 us), a trillionth of the burst for the sums.
    """
    return (need + bucket.burst * 1e-12) / bucket.rate + 1e-6


def check_costs(charges: Sequence[Charge], *, signed: bool = False) -> None:
    """Raises ValueError: a cost below 0 would fill buckets, NaN pass comparisons, and of a bucket named twice one would count."""
    if len(charges) > 1 and len({charge.bucket.name for charge in charges}) < len(charges):
        raise ValueError("a bucket is charged twice at once")
    for charge in charges:
        if not (math.isfinite(charge.cost) and (signed or charge.cost >= 0)):
            raise ValueError(f"{charge.bucket.name}: {charge.cost} is no cost")
