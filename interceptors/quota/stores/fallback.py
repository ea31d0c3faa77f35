"""Quotas while the shared store is unavailable: every replica grants its share by itself.

The rule:

- A call that the shared store does not answer in time is answered by the local one. From then on no call asks the shared
  store; it is probed in the background, at once and then twice a second, and used again as soon as it answers.
- The share is rate, burst and slots divided by `replicas`, and never less than one unit: a caller that may have one call at a
  time would have none. So together the replicas grant what is allowed, or one unit each where that is more.
- A cost above the share of a burst, and not above the burst, has to wait for the shared store: RETRY_AFTER.
- The local store keeps its count from one outage to the next, and nothing is carried over between the two. Each holds its
  own bound, so whatever the shared store does, a caller gets at most twice its limit: burst + rate x time from the shared
  store and as much from all local ones together.
- What a call took is given back to the store it was taken from, and to none if that is not known. What it owes is counted by
  the one that answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from interceptors.background import BackgroundTask
from interceptors.quota.stores.base import Bucket, Charge, Left, QuotaStore, Slots, Spent, StoreUnavailableError

log = logging.getLogger("interceptors.quota.fallback")

T = TypeVar("T")

PROBE_EVERY = 0.5
RETRY_AFTER = 5.0
"""Seconds sent to a caller whose call the share is too small for. How long the outage lasts is not known."""


class SharedStore(QuotaStore, Protocol):
    """A store that may be unavailable."""

    @property
    def place(self) -> str:
        """Its name in a log."""

    async def refresh(self) -> None:
        """Catch up after an outage; raises StoreUnavailableError while it lasts."""

    def release_later(self, lease: str) -> None:
        """As `release`, at the next refresh; sends nothing now."""


@dataclass(slots=True)
class _Call:
    shared: bool
    """Whether its slots are in the shared store."""
    whole: bool = True
    """Whether all of its charges are known to be in the same store as its slots."""


class FallbackStore:
    """Never unavailable but for `reset`. `replicas`: servers that share the limits. `clock`: Unix seconds, for `since`."""

    waits = True

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
        self._probe = BackgroundTask(f"quotas: the probe of {shared.place}", self._wait_for_shared)
        self.since: float | None = None
        """Unix seconds at which the shared store was lost; None: it is available."""
        self.losses = 0
        """Outages since the start."""

    @property
    def degraded(self) -> bool:
        """Whether calls are answered locally."""
        return self.since is not None

    @property
    def calls_in_flight(self) -> int:
        """Calls that hold something in one of the stores."""
        return len(self._calls)

    async def start(self) -> None:
        """Does not fail without the shared store: calls are answered locally then."""
        await self._shared.start()
        await self._local.start()
        await self._ask_shared(self._shared.refresh)

    async def close(self) -> None:
        """Idempotent."""
        await self._probe.close()
        await self._shared.close()
        await self._local.close()

    async def take(self, subject: str, charges: Sequence[Charge], slots: Sequence[Slots], lease: str) -> Left | Spent:
        taken = await self._ask_shared(lambda: self._shared.take(subject, charges, slots, lease))
        shared = taken is not None
        if taken is None:
            taken = await self._local.take(subject, self._charges(charges), [self._slots(slot) for slot in slots], lease)
        if isinstance(taken, Left):
            self._calls[lease] = _Call(shared)
            return taken
        return taken if shared else self._waiting(taken, charges)

    async def charge(self, subject: str, charges: Sequence[Charge], lease: str) -> Left | Spent:
        taken = await self._ask_shared(lambda: self._shared.charge(subject, charges, lease))
        shared = taken is not None
        if taken is None:
            taken = await self._local.charge(subject, self._charges(charges), lease)
        call = self._calls.get(lease)
        if call is not None and isinstance(taken, Left) and call.shared is not shared:
            call.whole = False
        return taken if shared or isinstance(taken, Left) else self._waiting(taken, charges)

    async def settle(self, subject: str, charges: Sequence[Charge], lease: str) -> None:
        owed = [charge for charge in charges if charge.cost >= 0]
        call = self._calls.get(lease)
        back = [charge for charge in charges if charge.cost < 0] if call is not None and call.whole else []
        if back and call is not None and not call.shared:
            await self._local.settle(subject, self._charges(back), lease)
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
        """In the store that has the slots."""
        call = self._calls.pop(lease, None)
        if call is None:
            return
        if not call.shared:
            await self._local.release(subject, lease)
        elif self.degraded:
            self._shared.release_later(lease)
        else:
            await self._ask_shared(lambda: self._shared.release(subject, lease))

    async def finish(self, subject: str, charges: Sequence[Charge], lease: str) -> None:
        call = self._calls.get(lease)
        if call is None or not call.shared or self.degraded:
            await self.settle(subject, charges, lease)
            await self.release(subject, lease)
            return
        del self._calls[lease]
        owed = [charge for charge in charges if charge.cost >= 0]
        back = [charge for charge in charges if charge.cost < 0 and call.whole]
        try:
            await self._shared.finish(subject, [*owed, *back], lease)
        except StoreUnavailableError as error:
            self._lost(error)
            if owed:
                await self._local.settle(subject, self._charges(owed), lease)

    async def show(self, subject: str, buckets: Sequence[Bucket], slots: Sequence[Slots]) -> Left:
        """Of the share, while the shared store is unavailable."""
        left = await self._ask_shared(lambda: self._shared.show(subject, buckets, slots))
        if left is not None:
            return left
        shares = [self._bucket(bucket) for bucket in buckets], [self._slots(slot) for slot in slots]
        return await self._local.show(subject, *shares)

    async def subjects(self, limit: int) -> Sequence[str]:
        found = await self._ask_shared(lambda: self._shared.subjects(limit))
        return found if found is not None else await self._local.subjects(limit)

    async def reset(self, subject: str) -> None:
        """In both. Raises StoreUnavailableError: what the shared store has counted still counts after the outage."""
        await self._local.reset(subject)
        if self.degraded:
            raise StoreUnavailableError("it has been unavailable, and is tried twice a second")
        try:
            await self._shared.reset(subject)
        except StoreUnavailableError as error:
            self._lost(error)
            raise

    async def _ask_shared(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """None: the shared store is unavailable."""
        if self.degraded:
            return None
        try:
            return await work()
        except StoreUnavailableError as error:
            self._lost(error)
            return None

    def _lost(self, error: StoreUnavailableError) -> None:
        if self.degraded:
            return
        self.since = self._clock()
        self.losses += 1
        # Whether the charges of these calls have reached it, or survive its outage, is not known.
        for call in self._calls.values():
            call.whole = call.whole and not call.shared
        self._reason = str(error)
        self._probe.start()

    async def _wait_for_shared(self) -> None:
        unavailable = False
        while not await self._answers():
            if not unavailable:
                unavailable, what = True, "quotas: %s is unavailable (%s); this replica grants 1/%d of every limit"
                log.warning(what, self._shared.place, self._reason, self._replicas)
            await asyncio.sleep(self._probe_every)
        self.since = None
        if unavailable:
            log.warning("quotas: %s is available again; limits are shared again", self._shared.place)
        else:  # an event loop that was busy for long looks like this as well
            log.info("quotas: %s left a call without an answer (%s)", self._shared.place, self._reason)

    async def _answers(self) -> bool:
        try:
            await self._shared.refresh()
        except StoreUnavailableError:
            return False
        except Exception:
            log.exception("quotas: the probe of %s failed", self._shared.place)
            return False
        return True

    def _waiting(self, spent: Spent, charges: Sequence[Charge]) -> Spent:
        """A call that only the share is too small for may be retried after the outage."""
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
        return Slots(slots.name, max(1, slots.limit // self._replicas))
