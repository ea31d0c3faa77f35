"""Quotas counted in Redis, so that they hold for all replicas together.

Calls in flight are leases of HOLD seconds, which this process renews while they last: those of a replica that crashes end
by themselves. A replica that was cut off for longer renews what it has, so that calls that still go on count again.

Whatever fails is StoreAwayError, and the call it failed for may have been charged all the same: too much is counted, never
too little. Its lease is given up by the next `refresh`.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

from interceptors.background import BackgroundTask
from interceptors.quota.stores.base import Bucket, Charge, Left, Slots, Spent, StoreUnavailableError, check_costs
from interceptors.quota.stores.redis_client import Command, ScriptClient
from interceptors.quota.stores.redis_script import SCRIPT

TIMEOUT = 0.05
"""Seconds for one answer, a connection to be made included: a healthy Redis takes 0.3 ms."""
HOLD = 30.0
RENEW_EVERY = 10.0
_GIVEN_UP = 10_000
"""Leases remembered whose release was lost. Those beyond end by themselves, after HOLD."""
_TOGETHER = 200
"""Leases renewed in one run of the script, during which Redis serves nobody else."""

_Keys = tuple[str, ...]


class RedisStore:
    """`place` is the URL without user and password, which are never shown. Belongs to one event loop."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "quota",
        timeout: float = TIMEOUT,
        renew_every: float = RENEW_EVERY,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`url`: redis://, rediss:// or unix://. `prefix` begins all keys. `clock`: for tests, seconds in place of Redis's time.

        Connects when it is first asked. Raises ValueError where the URL or the prefix is none.
        """
        if not re.fullmatch(r"[A-Za-z0-9:._-]+", prefix):
            raise ValueError("the prefix of Redis keys has letters, digits and : . _ - alone")
        self._prefix = prefix
        self._client = ScriptClient(url, SCRIPT, timeout)
        self.place = self._client.place
        self._clock = clock
        self._held: dict[str, _Keys] = {}  # by lease, the keys of its slots
        self._given_up: dict[str, _Keys] = {}
        self._renewal = BackgroundTask(f"quotas: renewing leases in {self.place}", self._renew, every=renew_every)

    async def start(self) -> None:
        """Renew leases from now on."""
        self._renewal.start()

    async def close(self) -> None:
        """Idempotent."""
        await self._renewal.close()
        await self._client.close()

    async def take(self, subject: str, charges: Sequence[Charge], slots: Sequence[Slots], lease: str) -> Left | Spent:
        """As QuotaStore has it, in one round trip."""
        check_costs(charges)
        keys = self._slot_keys(subject, slots)
        try:
            answer = await self._ask("take", subject, charges, slots, lease)
        except BaseException:  # where an answer is lost, or a caller leaves, nobody knows whether the slots were taken
            self._give_up(lease, keys)
            raise
        taken = _answered(answer, charges, slots)
        if keys and isinstance(taken, Left):
            self._held[lease] = keys
        return taken

    async def charge(self, subject: str, charges: Sequence[Charge], lease: str) -> Left | Spent:
        """As QuotaStore has it, in one round trip."""
        check_costs(charges)
        return _answered(await self._ask("take", subject, charges, (), lease), charges, ())

    async def settle(self, subject: str, charges: Sequence[Charge], lease: str) -> None:
        """As QuotaStore has it, in one round trip."""
        check_costs(charges, signed=True)
        await self._ask("settle", subject, charges, (), lease)

    async def release(self, subject: str, lease: str) -> None:
        """As QuotaStore has it, in one round trip. Where it fails, the next refresh makes up for it."""
        keys = self._held.pop(lease, ())
        if not keys:
            return
        try:
            await self._client.run(*self._release(lease, keys))
        except BaseException:
            self._give_up(lease, keys)
            raise

    async def finish(self, subject: str, charges: Sequence[Charge], lease: str) -> None:
        """As QuotaStore has it, in one round trip. Where it fails, the next refresh makes up for the release."""
        check_costs(charges, signed=True)
        keys = self._held.pop(lease, ())
        try:
            await self._client.run((f"{self._key(subject)}:used", *keys), self._asked("finish", charges, (), lease))
        except BaseException:
            self._give_up(lease, keys)
            raise

    def release_later(self, lease: str) -> None:
        """As `release`, at the next refresh: nothing is sent now."""
        self._give_up(lease, self._held.pop(lease, ()))

    async def refresh(self) -> None:
        """Renew the leases of calls in flight, and give up those that could not be released when their calls ended.

        Raises StoreAwayError where Redis does not do everything that calls need of it, writing among it.
        """
        await self._client.run((f"{self._prefix}:{{probe}}",), self._json("probe"))
        held = dict(self._held)
        await self._client.run_all(self._renewals(held))
        for lease, keys in held.items():
            if lease not in self._held:  # its call ended while the renewal was on its way
                self._give_up(lease, keys)
        given_up = dict(self._given_up)
        await self._client.run_all([self._release(lease, keys) for lease, keys in given_up.items()])
        for lease in given_up:
            self._given_up.pop(lease, None)

    async def show(self, subject: str, buckets: Sequence[Bucket], slots: Sequence[Slots]) -> Left:
        """As QuotaStore has it."""
        charges = [Charge(bucket, 0.0) for bucket in buckets]
        return _left(await self._ask("show", subject, charges, slots, ""), charges, slots)

    async def subjects(self, limit: int) -> Sequence[str]:
        """As QuotaStore has it. Goes through the keys of the database until it has enough."""
        head = f"{self._prefix}:{{"
        found: set[str] = set()
        async for key in self._client.scan(f"{head}*}}:*"):
            if len(found) < limit:
                found.add(unquote(key[len(head) :].partition("}")[0]))
            else:
                break
        return list(found)

    async def reset(self, subject: str) -> None:
        """As QuotaStore has it. Calls that still go on take their slots again when they are next renewed."""
        await self._client.delete([key async for key in self._client.scan(f"{self._key(subject)}:*")])

    async def _renew(self) -> None:
        with contextlib.suppress(StoreUnavailableError):  # calls that need the store fail as well, and that is logged
            await self.refresh()

    def _renewals(self, held: dict[str, _Keys]) -> list[Command]:
        leases: defaultdict[str, list[str]] = defaultdict(list)
        for lease, keys in held.items():
            for key in keys:
                leases[key].append(lease)
        return [
            ((key,), self._json("renew", leases=of_key[start : start + _TOGETHER], hold=HOLD))
            for key, of_key in leases.items()
            for start in range(0, len(of_key), _TOGETHER)
        ]

    def _release(self, lease: str, keys: _Keys) -> Command:
        return keys, self._json("release", lease=lease)

    def _give_up(self, lease: str, keys: _Keys) -> None:
        if keys:
            self._given_up[lease] = keys
            if len(self._given_up) > _GIVEN_UP:
                del self._given_up[next(iter(self._given_up))]

    async def _ask(self, mode: str, subject: str, charges: Sequence[Charge], slots: Sequence[Slots], lease: str) -> Any:
        keys = (f"{self._key(subject)}:used", *self._slot_keys(subject, slots))
        return await self._client.run(keys, self._asked(mode, charges, slots, lease))

    def _asked(self, mode: str, charges: Sequence[Charge], slots: Sequence[Slots], lease: str) -> tuple[str]:
        buckets = [(charge.bucket.name, charge.bucket.rate, charge.bucket.burst, charge.cost) for charge in charges]
        return self._json(mode, buckets=buckets, slots=[(slot.name, slot.most) for slot in slots], lease=lease, hold=HOLD)

    def _json(self, mode: str, **more: object) -> tuple[str]:
        """What the script is asked. Without a time it has Redis's own."""
        now = {} if self._clock is None else {"now": self._clock()}
        return (json.dumps({"mode": mode, **now, **more}),)

    def _key(self, subject: str) -> str:
        """What all keys of a subject begin with. The braces put them on one node of a cluster."""
        return f"{self._prefix}:{{{_quoted(subject)}}}"

    def _slot_keys(self, subject: str, slots: Sequence[Slots]) -> _Keys:
        key = self._key(subject)
        return tuple(f"{key}:slots:{slot.name}" for slot in slots)


@lru_cache(1024)
def _quoted(subject: str) -> str:
    """No brace and no blank in it."""
    return quote(subject, safe=":/@#.-_~=+,")


def _answered(answer: str, charges: Sequence[Charge], slots: Sequence[Slots]) -> Left | Spent:
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
