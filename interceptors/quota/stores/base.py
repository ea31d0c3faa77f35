"""What quotas count, and the interface of the stores that count it.

A bucket starts full, with `burst` units. A call takes units out, time puts `rate` units a second back, never above `burst`. So
over any stretch of time at most burst + rate x time is granted, whatever the calls look like; and a single cost above the burst
is never granted (`too_large`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol


class StoreUnavailableError(Exception):
    """The store cannot answer now. The message says why, without secrets: it may be logged."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A quota that refills. `rate` in units a second, `burst` in units; `name` says what a unit is."""

    name: str
    rate: float
    burst: float

    def __post_init__(self) -> None:
        if not (0 < self.rate < math.inf and 0 < self.burst < math.inf):
            raise ValueError(f"{self.name}: a rate and a burst above 0 are needed")


class Charge(NamedTuple):
    """`cost` units of a bucket. A cost of 0 checks for debt."""

    bucket: Bucket
    cost: float


@dataclass(frozen=True, slots=True)
class Slots:
    """A quota of things in flight at the same time."""

    name: str
    limit: int

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"{self.name}: at least 1 is needed")


@dataclass(frozen=True, slots=True)
class Left:
    """Granted. What is left of each quota asked for, in its units; below 0 is a debt."""

    remaining: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Spent:
    """Refused, and nothing was taken. `name` is the quota with the longest wait, `remaining` what is left of it.

    - "spent": the bucket has too little now; the same call will be granted `retry_after` seconds later, and not before,
      unless other calls take more meanwhile.
    - "too_large": the cost is above the burst. `retry_after` is None.
    - "in_flight": all slots are taken. `retry_after` is None: it depends on when the caller's own calls end.
    """

    name: str
    remaining: float
    retry_after: float | None
    kind: Literal["spent", "too_large", "in_flight"] = "spent"


class QuotaStore(Protocol):
    """Counts by subject, the name a caller is counted under. Belongs to one event loop.

    Every method but `start` and `close` may raise StoreUnavailableError, unless a store says that it does not. `waits`: whether
    any of them waits for something, so that a call that is cancelled can interrupt it.
    """

    @property
    def waits(self) -> bool: ...

    async def start(self) -> None:
        """Start background work. Does not fail if the store is unavailable."""

    async def close(self) -> None:
        """Idempotent."""

    async def take(self, subject: str, charges: Sequence[Charge], slots: Sequence[Slots], lease: str) -> Left | Spent:
        """All that a call needs, or none of it. `lease` identifies the call; `release` ends it."""

    async def charge(self, subject: str, charges: Sequence[Charge], lease: str) -> Left | Spent:
        """More for a call in progress, as its bytes come in: all of it or none."""

    async def settle(self, subject: str, charges: Sequence[Charge], lease: str) -> None:
        """Correct what was charged to a call once its true cost is known.

        A cost below 0 is given back, never above the burst; one above 0 is taken whatever is left, and may leave a debt
        that later calls wait for.
        """

    async def release(self, subject: str, lease: str) -> None:
        """The call is over: its slots are free. To be called once for every `take` that was granted; twice does no harm."""

    async def finish(self, subject: str, charges: Sequence[Charge], lease: str) -> None:
        """`settle` and `release` in one round trip."""

    async def show(self, subject: str, buckets: Sequence[Bucket], slots: Sequence[Slots]) -> Left:
        """What is left, without taking any of it."""

    async def subjects(self, limit: int) -> Sequence[str]:
        """Names of subjects with an account, `limit` at most, in no order."""

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
            raise ValueError(f"{charge.bucket.name}: {charge.cost} is not a valid cost")
