"""What holds while the shared store is away: every replica grants its share by itself.

The rule:

- A call that the shared store does not answer in time is answered by the local one. From then on no call asks the shared
  store; it is tried beside them, at once and then twice a second, and asked again as soon as it answers.
- The share is rate, burst and slots divided by `replicas`. A share is never less than one unit: a caller that may have one
  call at a time would have none. So together the replicas grant what is allowed, or one unit each where that is more.
- What costs more than the share of a burst, and no more than the burst, has to wait for the shared store: RETRY_AFTER.
- The local store keeps its count from one outage to the next, and nothing is carried over between the two. Each holds its
  own bound, so whatever the shared store does, a caller gets at most twice its limit: burst + rate x time from the shared
  store and as much from all local ones together.
- What a call took is given back to the store it was taken from, and to none when that cannot be told. What it owes is
  counted by the one that answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from interceptors.background import BackgroundTask
from interceptors.quota.stores.base import Bucket, Charge, Left, QuotaStore, Slots, Spent, StoreUnavailableError

log = logging.getLogger("interceptors.quota.fallback")

PROBE_EVERY = 0.5
RETRY_AFTER = 5.0
"""Seconds: when a call comes back that the share is too small for. Nobody knows when the shared store does."""


class SharedStore(QuotaStore, Protocol):
    """A store that can be away."""

    @property
    def place(self) -> str:
        """What to call it in a log."""

    async def refresh(self) -> None:
        """Catch up with what went on meanwhile; raises StoreAwayError where it is away still."""

    def release_later(self, lease: str) -> None:
        """As `release`, at the next refresh; asks nothing now."""


@dataclass(slots=True)
class _Call:
    shared: bool
    """Where its slots are."""
    told: bool = True
    """Whether all that it was charged is there as well."""


class FallbackStore:
    """Never away but for `reset`. `replicas`: how many gateways share the limits. `clock`: Unix seconds, for `since`."""

    def __init__(
        self,
        shared: SharedStore,
        local: QuotaStore,
        replicas: int,
        *,
        probe_every: float = PROBE_EVERY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if replicas < 1:
            raise ValueError("there is at least one replica")
        self._shared = shared
        self._local = local
        self._replicas = replicas
        self._probe_every = probe_every
        self._clock = clock
        self._calls: dict[str, _Call] = {}
        self._reason = ""
        self._probe = BackgroundTask(f"quotas: the probe of {shared.place}", self._until_it_is_back)
        self.since: float | None = None
        """Unix seconds at which the shared store was lost; None: it is there."""
        self.losses = 0
        """How often it was, since the start."""

    @property
    def degraded(self) -> bool:
        """Whether calls are answered locally."""
        return self.since is not None

    async def start(self) -> None:
        """Does not fail without the shared store: calls are answered locally then."""
        await self._shared.start()
        await self._local.start()
        try:
            await self._shared.refresh()
        except StoreUnavailableError as error:
            self._lost(error)

    async def close(self) -> None:
        """Idempotent."""
        await self._probe.close()
        await self._shared.close()
        await self._local.close()

    async def take(self, subject: str, charges: Sequence[Charge], slots: Sequence[Slots], lease: str) -> Left | Spent:
        """As QuotaStore has it."""
        if not self.degraded:
            try:
                taken = await self._shared.take(subject, charges, slots, lease)
            except StoreUnavailableError as error:
                self._lost(error)
            else:
                if isinstance(taken, Left):
                    self._calls[lease] = _Call(shared=True)
                return taken
        taken = await self._local.take(subject, self._charges(charges), [self._slots(slot) for slot in slots], lease)
        if isinstance(taken, Left):
            self._calls[lease] = _Call(shared=False)
            return taken
        return self._waiting(taken, charges)

    async def charge(self, subject: str, charges: Sequence[Charge], lease: str) -> Left | Spent:
        """As QuotaStore has it."""
        if not self.degraded:
            try:
                taken = await self._shared.charge(subject, charges, lease)
            except StoreUnavailableError as error:
                self._lost(error)
            else:
                self._charged(lease, taken, shared=True)
                return taken
        taken = await self._local.charge(subject, self._charges(charges), lease)
        self._charged(lease, taken, shared=False)
        return taken if isinstance(taken, Left) else self._waiting(taken, charges)

    async def settle(self, subject: str, charges: Sequence[Charge], lease: str) -> None:
        """As QuotaStore has it."""
        owed = [charge for charge in charges if charge.cost >= 0]
        back = [charge for charge in charges if charge.cost < 0]
        call = self._calls.get(lease)
        if back and call is not None and call.told and not call.shared:
            await self._local.settle(subject, self._charges(back), lease)
        if call is None or not (call.told and call.shared):
            back = []
        if not self.degraded:
            try:
                if owed or back:
                    await self._shared.settle(subject, [*owed, *back], lease)
            except StoreUnavailableError as error:
                self._lost(error)
            else:
                return
        if owed:
            await self._local.settle(subject, self._charges(owed), lease)

    async def release(self, subject: str, lease: str) -> None:
        """As QuotaStore has it, in the store that has the slots."""
        call = self._calls.pop(lease, None)
        if call is None:
            return
        if not call.shared:
            await self._local.release(subject, lease)
        elif self.degraded:
            self._shared.release_later(lease)
        else:
            try:
                await self._shared.release(subject, lease)
            except StoreUnavailableError as error:
                self._lost(error)

    async def finish(self, subject: str, charges: Sequence[Charge], lease: str) -> None:
        """As QuotaStore has it."""
        call = self._calls.get(lease)
        if call is None or not call.shared or self.degraded:
            await self.settle(subject, charges, lease)
            await self.release(subject, lease)
            return
        del self._calls[lease]
        owed = [charge for charge in charges if charge.cost >= 0]
        back = [charge for charge in charges if charge.cost < 0 and call.told]
        try:
            await self._shared.finish(subject, [*owed, *back], lease)
        except StoreUnavailableError as error:
            self._lost(error)
            if owed:
                await self._local.settle(subject, self._charges(owed), lease)

    async def show(self, subject: str, buckets: Sequence[Bucket], slots: Sequence[Slots]) -> Left:
        """As QuotaStore has it: of the share, while the shared store is away."""
        if not self.degraded:
            try:
                return await self._shared.show(subject, buckets, slots)
            except StoreUnavailableError as error:
                self._lost(error)
        shares = [self._bucket(bucket) for bucket in buckets], [self._slots(slot) for slot in slots]
        return await self._local.show(subject, *shares)

    async def subjects(self, limit: int) -> Sequence[str]:
        """As QuotaStore has it."""
        if not self.degraded:
            try:
                return await self._shared.subjects(limit)
            except StoreUnavailableError as error:
                self._lost(error)
        return await self._local.subjects(limit)

    async def reset(self, subject: str) -> None:
        """In both. Raises StoreAwayError: what the shared store has counted still counts when it is back."""
        await self._local.reset(subject)
        if self.degraded:
            raise StoreUnavailableError("it has been away, and is tried twice a second")
        try:
            await self._shared.reset(subject)
        except StoreUnavailableError as error:
            self._lost(error)
            raise

    def _lost(self, error: StoreUnavailableError) -> None:
        if self.degraded:
            return
        self.since = self._clock()
        self.losses += 1
        # Whether what was charged there has reached it, or is there when it is back, nobody knows.
        for call in self._calls.values():
            call.told = call.told and not call.shared
        self._reason = str(error)
        self._probe.start()

    async def _until_it_is_back(self) -> None:
        away = False
        while not await self._answers():
            if not away:
                away, what = True, "quotas: %s is away (%s); this replica grants 1/%d of every limit"
                log.warning(what, self._shared.place, self._reason, self._replicas)
            await asyncio.sleep(self._probe_every)
        self.since = None
        if away:
            log.warning("quotas: %s is back; limits are shared again", self._shared.place)
        else:  # an event loop that was busy for long looks like this as well
            log.info("quotas: %s left a call without an answer (%s)", self._shared.place, self._reason)

    async def _answers(self) -> bool:
        try:
            await self._shared.refresh()
        except Exception:  # StoreAwayError; and whatever else it might be, it is not back
            return False
        return True

    def _charged(self, lease: str, taken: Left | Spent, *, shared: bool) -> None:
        call = self._calls.get(lease)
        if call is not None and isinstance(taken, Left) and call.shared is not shared:
            call.told = False

    def _waiting(self, spent: Spent, charges: Sequence[Charge]) -> Spent:
        """No share is a reason to tell a caller that its call is too large for ever."""
        whole = {charge.bucket.name: charge for charge in charges}.get(spent.name)
        if spent.kind == "too_large" and whole is not None and whole.cost <= whole.bucket.burst:
            return replace(spent, kind="spent", retry_after=RETRY_AFTER)
        return spent

    def _charges(self, charges: Sequence[Charge]) -> list[Charge]:
        return [Charge(self._bucket(charge.bucket), charge.cost) for charge in charges]

    def _bucket(self, bucket: Bucket) -> Bucket:
        burst = max(bucket.burst / self._replicas, min(bucket.burst, 1.0))
        return Bucket(bucket.name, bucket.rate / self._replicas, burst)

    def _slots(self, slots: Slots) -> Slots:
        return Slots(slots.name, max(1, slots.most // self._replicas))
