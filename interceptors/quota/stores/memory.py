"""Quotas counted in this process: for a single replica, and for each of several while the shared store is unavailable.

Arithmetic in the same order as in redis_script.py, so that both decide exactly alike.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from interceptors.quota.stores.base import Bucket, Charge, Left, Slots, Spent, check_costs, retry_after

MAX_SUBJECTS = 10_000
"""Accounts kept, 2 KB each."""
_COMPARED = 16
"""Accounts compared when one is evicted: the least recently used, whose buckets are most likely full."""


class _Used(NamedTuple):
    """Units taken out of one bucket as of a time, and its rate."""

    units: float
    at: float
    rate: float


@dataclass(slots=True)
class _Account:
    used: dict[str, _Used] = field(default_factory=dict)
    leases: dict[str, set[str]] = field(default_factory=dict)

    def units(self, bucket: Bucket, now: float) -> float:
        used = self.used.get(bucket.name)
        if used is None:
            return 0.0
        elapsed = now - used.at
        if elapsed <= 0.0:
            return used.units
        return max(0.0, used.units - elapsed * bucket.rate)

    def full_at(self) -> float:
        return max((used.at + used.units / used.rate for used in self.used.values()), default=0.0)


class MemoryStore:
    """Never unavailable, and never waits. `clock` is monotonic, in seconds.

    Above `max_subjects` accounts one of the least recently used is evicted, the one whose buckets are full or will be first.
    Accounts with calls in flight are never evicted, so there may be more by as many. A lease ends with `release`, or with the
    process.
    """

    waits = False

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, max_subjects: int = MAX_SUBJECTS) -> None:
        self._clock = clock
        self._max_subjects = max_subjects
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    async def start(self) -> None:
        """Nothing to start."""

    async def close(self) -> None:
        """Nothing to close."""

    async def take(self, subject: str, charges: Sequence[Charge], slots: Sequence[Slots], lease: str) -> Left | Spent:
        """Takes 2 us and some more for each quota."""
        check_costs(charges)
        return self._take(subject, charges, slots, lease)

    async def charge(self, subject: str, charges: Sequence[Charge], lease: str) -> Left | Spent:
        check_costs(charges)
        return self._take(subject, charges, (), "")

    async def settle(self, subject: str, charges: Sequence[Charge], lease: str) -> None:
        check_costs(charges, signed=True)
        now = self._clock()
        account = self._account(subject)
        for charge in charges:
            units = account.units(charge.bucket, now) + charge.cost
            account.used[charge.bucket.name] = _Used(max(units, 0.0), now, charge.bucket.rate)

    async def release(self, subject: str, lease: str) -> None:
        account = self._accounts.get(subject)
        if account is not None:
            for name, held in list(account.leases.items()):
                held.discard(lease)
                if not held:
                    del account.leases[name]

    async def finish(self, subject: str, charges: Sequence[Charge], lease: str) -> None:
        await self.settle(subject, charges, lease)
        await self.release(subject, lease)

    async def show(self, subject: str, buckets: Sequence[Bucket], slots: Sequence[Slots]) -> Left:
        now = self._clock()
        account = self._accounts.get(subject) or _Account()
        remaining = {bucket.name: bucket.burst - account.units(bucket, now) for bucket in buckets}
        return Left(remaining | {slot.name: slot.limit - len(account.leases.get(slot.name, ())) for slot in slots})

    async def subjects(self, limit: int) -> Sequence[str]:
        return list(islice(reversed(self._accounts), limit))

    async def reset(self, subject: str) -> None:
        self._accounts.pop(subject, None)

    def _take(self, subject: str, charges: Sequence[Charge], slots: Sequence[Slots], lease: str) -> Left | Spent:
        now = self._clock()
        account = self._account(subject)
        units = [account.units(charge.bucket, now) for charge in charges]
        spent = _spent(charges, units, slots, account, lease)
        if spent is not None:
            return spent
        remaining: dict[str, float] = {}
        for charge, before in zip(charges, units, strict=True):
            bucket, after = charge.bucket, before + charge.cost
            account.used[bucket.name] = _Used(after, now, bucket.rate)
            remaining[bucket.name] = bucket.burst - after
        for slot in slots:
            held = account.leases.setdefault(slot.name, set())
            held.add(lease)
            remaining[slot.name] = slot.limit - len(held)
        return Left(remaining)

    def _account(self, subject: str) -> _Account:
        account = self._accounts.get(subject)
        if account is None:
            for _ in range(min(2, len(self._accounts) + 1 - self._max_subjects)):  # two, so that an excess shrinks again
                self._evict_one()
            account = self._accounts[subject] = _Account()
        else:
            self._accounts.move_to_end(subject)
        return account

    def _evict_one(self) -> None:
        oldest = list(islice(self._accounts, _COMPARED))
        idle = [subject for subject in oldest if not self._accounts[subject].leases]
        if idle:
            del self._accounts[min(idle, key=lambda subject: self._accounts[subject].full_at())]
            return
        for subject in oldest:  # accounts with long calls: the next eviction skips them
            self._accounts.move_to_end(subject)


def _spent(
    charges: Sequence[Charge], units: Sequence[float], slots: Sequence[Slots], account: _Account, lease: str
) -> Spent | None:
    """First costs that are too large, then slots, then the bucket with the longest wait, for `retry_after` has to be enough."""
    for charge, before in zip(charges, units, strict=True):
        if charge.cost > charge.bucket.burst:
            return Spent(charge.bucket.name, charge.bucket.burst - before, None, "too_large")
    for slot in slots:
        held = account.leases.get(slot.name, ())
        if lease not in held and len(held) >= slot.limit:
            return Spent(slot.name, slot.limit - len(held), None, "in_flight")
    last: Spent | None = None
    for charge, before in zip(charges, units, strict=True):
        bucket = charge.bucket
        need = before + charge.cost - bucket.burst
        if need > 0.0:
            wait = retry_after(need, bucket)
            if last is None or last.retry_after is None or wait > last.retry_after:
                last = Spent(bucket.name, bucket.burst - before, wait)
    return last
