"""Quotas counted by the supervisor for all gateways: its half, and theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aligner_svc.processes.duplex import Duplex, Handler, NoAnswerError
from interceptors.quota.stores.base import Bucket, Charge, Left, Slots, Spent, StoreUnavailableError, check_costs
from interceptors.quota.stores.memory import MemoryStore


class SharedCounts:
    """The supervisor's half: one store for all. `of` a gateway, until `forget` it."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self._store = store or MemoryStore()
        self._leases: dict[int, dict[str, str]] = {}

    def of(self, gateway: int) -> dict[str, Handler]:
        """The handlers of its link. Its leases are its own: those of two gateways may have the same name."""
        leases = self._leases.setdefault(gateway, {})
        store = self._store

        def own(lease: str) -> str:
            return f"{gateway}:{lease}"

        async def take(subject: str, charges: list[Any], slots: list[Any], lease: str) -> list[Any]:
            taken = await store.take(subject, _charges(charges), _slots(slots), own(lease))
            if isinstance(taken, Left):
                leases[lease] = subject
            return _packed(taken)

        async def charge(subject: str, charges: list[Any], lease: str) -> list[Any]:
            return _packed(await store.charge(subject, _charges(charges), own(lease)))

        async def settle(subject: str, charges: list[Any], lease: str) -> None:
            await store.settle(subject, _charges(charges), own(lease))

        async def release(subject: str, lease: str) -> None:
            await store.release(leases.pop(lease, subject), own(lease))

        async def finish(subject: str, charges: list[Any], lease: str) -> None:
            leases.pop(lease, None)
            await store.finish(subject, _charges(charges), own(lease))

        async def show(subject: str, buckets: list[Any], slots: list[Any]) -> list[Any]:
            return _packed(await store.show(subject, [Bucket(*bucket) for bucket in buckets], _slots(slots)))

        return {
            "take": take,
            "charge": charge,
            "settle": settle,
            "release": release,
            "finish": finish,
            "show": show,
            "subjects": store.subjects,
            "reset": store.reset,
        }

    async def forget(self, gateway: int) -> None:
        """It has ended, and its calls with it."""
        for lease, subject in self._leases.pop(gateway, {}).items():
            await self._store.release(subject, f"{gateway}:{lease}")


class LinkedStore:
    """A gateway's half: a QuotaStore that asks the supervisor. Unavailable while that does not answer.

    What is told is read in the order in which it is sent, so only grants are waited for.
    """

    waits = True
    place = "the supervisor"

    def __init__(self, link: Duplex) -> None:
        self._link = link

    async def start(self) -> None:
        """Nothing to start."""

    async def close(self) -> None:
        """The link is the gateway's."""

    async def take(self, subject: str, charges: Sequence[Charge], slots: Sequence[Slots], lease: str) -> Left | Spent:
        check_costs(charges)
        try:
            limits = [(slot.name, slot.limit) for slot in slots]
            return _unpacked(await self._ask("take", subject, _plain(charges), limits, lease))
        except BaseException:  # cancelled, too: it may be granted all the same
            self._link.tell("release", subject, lease)
            raise

    async def charge(self, subject: str, charges: Sequence[Charge], lease: str) -> Left | Spent:
        check_costs(charges)
        return _unpacked(await self._ask("charge", subject, _plain(charges), lease))

    async def settle(self, subject: str, charges: Sequence[Charge], lease: str) -> None:
        check_costs(charges, signed=True)
        self._link.tell("settle", subject, _plain(charges), lease)

    async def release(self, subject: str, lease: str) -> None:
        self._link.tell("release", subject, lease)

    async def finish(self, subject: str, charges: Sequence[Charge], lease: str) -> None:
        check_costs(charges, signed=True)
        self._link.tell("finish", subject, _plain(charges), lease)

    async def show(self, subject: str, buckets: Sequence[Bucket], slots: Sequence[Slots]) -> Left:
        plain = [(bucket.name, bucket.rate, bucket.burst) for bucket in buckets]
        left = _unpacked(await self._ask("show", subject, plain, [(slot.name, slot.limit) for slot in slots]))
        assert isinstance(left, Left)
        return left

    async def subjects(self, limit: int) -> Sequence[str]:
        found: list[str] = await self._ask("subjects", limit)
        return found

    async def reset(self, subject: str) -> None:
        await self._ask("reset", subject)

    async def refresh(self) -> None:
        """Raises StoreUnavailableError unless the supervisor answers."""
        await self._ask("subjects", 0)

    def release_later(self, lease: str) -> None:
        """The supervisor knows whose lease it is, and reads it when it reads again."""
        self._link.tell("release", "", lease)

    async def _ask(self, name: str, *arguments: object) -> Any:
        try:
            return await self._link.ask(name, *arguments)
        except NoAnswerError as error:
            raise StoreUnavailableError(str(error)) from None


def _plain(charges: Sequence[Charge]) -> list[tuple[str, float, float, float]]:
    return [(bucket.name, bucket.rate, bucket.burst, cost) for bucket, cost in charges]


def _charges(plain: list[Any]) -> list[Charge]:
    return [Charge(Bucket(name, rate, burst), cost) for name, rate, burst, cost in plain]


def _slots(plain: list[Any]) -> list[Slots]:
    return [Slots(name, limit) for name, limit in plain]


def _packed(taken: Left | Spent) -> list[Any]:
    if isinstance(taken, Left):
        return [taken.remaining]
    return [taken.name, taken.remaining, taken.retry_after, taken.kind]


def _unpacked(packed: list[Any]) -> Left | Spent:
    return Left(packed[0]) if len(packed) == 1 else Spent(*packed)
