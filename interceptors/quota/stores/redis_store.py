"""Quotas counted in Redis, for all replicas together.

Calls in flight are leases of LEASE_SECONDS, which this process renews while they last: those of a replica that crashes expire. A
replica that was cut off for longer renews what it has, so that calls still in progress count again.

Every failure is a StoreUnavailableError, and the call may have been charged all the same: too much is counted, never too little.
Its lease is released by the next `refresh`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

from interceptors.background import BackgroundTask, Tasks
from interceptors.quota.stores.base import Bucket, Charge, Left, Slots, Spent, StoreUnavailableError, check_costs
from interceptors.quota.stores.redis_client import Command, ScriptClient
from interceptors.quota.stores.redis_script import SCRIPT

TIMEOUT = 0.05
"""Seconds for one answer, opening a connection included: a healthy Redis takes 0.3 ms."""
LEASE_SECONDS = 30.0
RENEW_EVERY = 10.0
_MAX_UNRELEASED = 10_000
"""Leases remembered whose release failed. Those beyond it expire after LEASE_SECONDS."""
_MAX_RENEWALS = 200
"""Leases renewed in one run of the script, during which Redis serves no other client."""

_Keys = tuple[str, ...]


class RedisStore:
    """Each step of a call is one round trip. `place` is the URL without user and password. Belongs to one event loop."""

    waits = True

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "quota",
        timeout: float = TIMEOUT,
        renew_every: float = RENEW_EVERY,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`url`: redis://, rediss:// or unix://. `prefix` of all keys. `clock`: for tests, seconds in place of Redis's time.

        Connects on first use. Raises ValueError for an invalid URL or prefix.
        """
        if not re.fullmatch(r"[A-Za-z0-9:._-]+", prefix):
            raise ValueError("the prefix of Redis keys may have only letters, digits and : . _ -")
        self.prefix = prefix
        self.client = ScriptClient(url, SCRIPT, timeout)
        self.place = self.client.place
        self._clock = clock
        self._held: dict[str, _Keys] = {}  # by lease, the keys of its slots
        self._unreleased: dict[str, _Keys] = {}
        self._releasing = Tasks()
        self._renewal = BackgroundTask(f"quotas: renewing leases in {self.place}", self._renew, every=renew_every)

    async def start(self) -> None:
        """Start to renew leases."""
        self._renewal.start()

    async def close(self) -> None:
        """Idempotent."""
        await self._renewal.close()
        await self._releasing.wait()
        await self.client.close()

    async def take(self, subject: str, charges: Sequence[Charge], slots: Sequence[Slots], lease: str) -> Left | Spent:
        check_costs(charges)
        keys = self._slot_keys(subject, slots)
        try:
            answer = await self._ask("take", subject, charges, slots, lease)
        except asyncio.CancelledError:
            # The slots may have been taken, and are free at once; by the refresh too, should Redis take them only now.
            self._release_at_refresh(lease, keys)
            self._releasing.start(self._try_release(lease, keys))
            raise
        except BaseException:  # the answer is lost
            self._release_at_refresh(lease, keys)
            raise
        taken = _outcome(answer, charges, slots)
        if keys and isinstance(taken, Left):
            self._held[lease] = keys
        return taken

    async def charge(self, subject: str, charges: Sequence[Charge], lease: str) -> Left | Spent:
        check_costs(charges)
        return _outcome(await self._ask("take", subject, charges, (), lease), charges, ())

    async def settle(self, subject: str, charges: Sequence[Charge], lease: str) -> None:
        check_costs(charges, signed=True)
        await self._ask("settle", subject, charges, (), lease)

    async def release(self, subject: str, lease: str) -> None:
        """A release that fails is repeated by the next refresh."""
        keys = self._held.pop(lease, ())
        if not keys:
            return
        try:
            await self.client.run(*self._release(lease, keys))
        except BaseException:
            self._release_at_refresh(lease, keys)
            raise

    async def finish(self, subject: str, charges: Sequence[Charge], lease: str) -> None:
        """A release that fails is repeated by the next refresh."""
        check_costs(charges, signed=True)
        keys = self._held.pop(lease, ())
        try:
            await self.client.run((f"{self._key(subject)}:used", *keys), self._argument("finish", charges, (), lease))
        except BaseException:
            self._release_at_refresh(lease, keys)
            raise

    def release_later(self, lease: str) -> None:
        """As `release`, at the next refresh; sends nothing now."""
        self._release_at_refresh(lease, self._held.pop(lease, ()))

    async def refresh(self) -> None:
        """Renew the leases of calls in flight, and release those whose release failed.

        Raises StoreUnavailableError if Redis does not do all that calls need, such as writing.
        """
        await self.client.run((f"{self.prefix}:{{probe}}",), self._json("probe"))
        held = dict(self._held)
        await self.client.run_all(self._renewals(held))
        for lease, keys in held.items():
            if lease not in self._held:  # its call ended during the renewal
                self._release_at_refresh(lease, keys)
        unreleased = dict(self._unreleased)
        await self.client.run_all([self._release(lease, keys) for lease, keys in unreleased.items()])
        for lease in unreleased:
            self._unreleased.pop(lease, None)

    async def show(self, subject: str, buckets: Sequence[Bucket], slots: Sequence[Slots]) -> Left:
        charges = [Charge(bucket, 0.0) for bucket in buckets]
        return _left(await self._ask("show", subject, charges, slots, ""), charges, slots)

    async def subjects(self, limit: int) -> Sequence[str]:
        """Scans the keys of the database until it has enough, in many round trips."""
        head = f"{self.prefix}:{{"
        found: set[str] = set()
        async for key in self.client.scan(f"{head}*}}:*"):
            if len(found) < limit:
                found.add(unquote(key[len(head) :].partition("}")[0]))
            else:
                break
        return list(found)

    async def reset(self, subject: str) -> None:
        """Calls in progress take their slots again when they are next renewed."""
        await self.client.delete([key async for key in self.client.scan(f"{self._key(subject)}:*")])

    async def _renew(self) -> None:
        with contextlib.suppress(StoreUnavailableError):  # calls that need the store fail as well, and that is logged
            await self.refresh()

    def _renewals(self, held: dict[str, _Keys]) -> list[Command]:
        leases: defaultdict[str, list[str]] = defaultdict(list)
        for lease, keys in held.items():
            for key in keys:
                leases[key].append(lease)
        return [
            ((key,), self._json("renew", leases=of_key[start : start + _MAX_RENEWALS], hold=LEASE_SECONDS))
            for key, of_key in leases.items()
            for start in range(0, len(of_key), _MAX_RENEWALS)
        ]

    async def _try_release(self, lease: str, keys: _Keys) -> None:
        with contextlib.suppress(StoreUnavailableError):
            if keys:
                await self.client.run(*self._release(lease, keys))

    def _release(self, lease: str, keys: _Keys) -> Command:
        return keys, self._json("release", lease=lease)

    def _release_at_refresh(self, lease: str, keys: _Keys) -> None:
        if keys:
            self._unreleased[lease] = keys
            if len(self._unreleased) > _MAX_UNRELEASED:
                del self._unreleased[next(iter(self._unreleased))]

    async def _ask(self, mode: str, subject: str, charges: Sequence[Charge], slots: Sequence[Slots], lease: str) -> Any:
        keys = (f"{self._key(subject)}:used", *self._slot_keys(subject, slots))
        return await self.client.run(keys, self._argument(mode, charges, slots, lease))

    def _argument(self, mode: str, charges: Sequence[Charge], slots: Sequence[Slots], lease: str) -> tuple[str]:
        buckets = [(charge.bucket.name, charge.bucket.rate, charge.bucket.burst, charge.cost) for charge in charges]
        limits = [(slot.name, slot.limit) for slot in slots]
        return self._json(mode, buckets=buckets, slots=limits, lease=lease, hold=LEASE_SECONDS)

    def _json(self, mode: str, **more: object) -> tuple[str]:
        """The argument of the script, which uses Redis's time if it has none."""
        now = {} if self._clock is None else {"now": self._clock()}
        return (json.dumps({"mode": mode, **now, **more}),)

    def _key(self, subject: str) -> str:
        """Prefix of all keys of a subject. The braces put them on one node of a cluster."""
        return f"{self.prefix}:{{{_quoted(subject)}}}"

    def _slot_keys(self, subject: str, slots: Sequence[Slots]) -> _Keys:
        key = self._key(subject)
        return tuple(f"{key}:slots:{slot.name}" for slot in slots)


@lru_cache(1024)
def _quoted(subject: str) -> str:
    """Without braces and blanks."""
    return quote(subject, safe=":/@#.-_~=+,")


def _outcome(answer: str, charges: Sequence[Charge], slots: Sequence[Slots]) -> Left | Spent:
    match answer.split(" "):
        case ["too_large", name, remaining]:
            return Spent(name, float(remaining), None, "too_large")
        case ["in_flight", name, remaining]:
            return Spent(name, float(remaining), None, "in_flight")
        case ["spent", name, remaining, wait]:
            return Spent(name, float(remaining), float(wait))
    return _left(answer, charges, slots)


def _left(answer: str, charges: Sequence[Charge], slots: Sequence[Slots]) -> Left:
    names = [*(charge.bucket.name for charge in charges), *(slot.name for slot in slots)]
    return Left(dict(zip(names, map(float, answer.split(" ")[1:]), strict=True)))
