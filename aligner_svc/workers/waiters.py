"""Calls that wait for a free child: retries first, then one call of each client in turn."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Generic, TypeVar

from aligner_svc.workers.fair_queue import FairQueue, Room

T = TypeVar("T")

_CLIENTS: Final = 1024
"""Clients that are expected to wait at a time: if more do, fairness between them suffers."""


class Waiters(Generic[T]):
    """Futures of what is waited for. Clients that wait get equal shares of the sizes, however many calls each has waiting."""

    def __init__(self) -> None:
        self._retries: deque[asyncio.Future[T]] = deque()
        self._fair: FairQueue[asyncio.Future[T]] = FairQueue(_CLIENTS)

    def __len__(self) -> int:
        return sum(not waiter.done() for waiters in (self._retries, self._fair) for waiter in waiters)

    def add(self, client: str, size: int, *, first: bool) -> asyncio.Future[T]:
        """A future that `pop` will return. `size`: charged to `client`; `first`: before all others, as it has waited."""
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if first:
            self._retries.append(waiter)
        else:
            self._fair.add(waiter, client, max(1, size))
        return waiter

    def discard(self, waiter: asyncio.Future[T]) -> None:
        """Remove a future if it is there."""
        self._fair.discard(waiter)
        if waiter in self._retries:
            self._retries.remove(waiter)

    def pop(self) -> asyncio.Future[T] | None:
        """Remove and return the next one that is not done; None if there is none."""
        while True:
            if self._retries:
                waiter = self._retries.popleft()
            elif taken := self._fair.take(Room(budget=1, max_items=1)):
                (waiter,) = taken
            else:
                return None
            if not waiter.done():
                return waiter
