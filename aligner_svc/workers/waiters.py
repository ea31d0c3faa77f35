"""Calls that wait for a child, and children that wait for calls."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Generic, TypeVar

from aligner_svc.workers.fair_queue import FairQueue, Room

T = TypeVar("T")

_CLIENTS: Final = 1024
"""Clients that are expected to wait at a time: if more do, fairness between them suffers."""


class Waiters(Generic[T]):
    """Futures of what is waited for: retries first, then one call of each client in turn.

    Clients that wait get equal shares of the sizes, however many calls each has waiting.
    """

    def __init__(self) -> None:
        self._retries: deque[asyncio.Future[T]] = deque()
        self._fair: FairQueue[asyncio.Future[T]] = FairQueue(_CLIENTS)

    def __len__(self) -> int:
        return sum(not waiter.done() for waiters in (self._retries, self._fair) for waiter in waiters)

    @property
    def retries(self) -> bool:
        """Whether `pop` returns a retry next."""
        return any(not waiter.done() for waiter in self._retries)

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


class Vacancies(Generic[T]):
    """Children and how many more calls each can be given."""

    def __init__(self, full: int) -> None:
        """`full`: calls that each has at a time."""
        self.full = full
        self._left: dict[T, int] = {}

    def __contains__(self, child: T) -> bool:
        return child in self._left

    def add(self, child: T) -> None:
        """One that has no room yet."""
        self._left[child] = 0

    def remove(self, child: T) -> None:
        self._left.pop(child, None)

    def idle(self, child: T) -> bool:
        return self._left[child] == self.full

    def all_idle(self) -> list[T]:
        return [child for child in self._left if self.idle(child)]

    def find(self, share: int) -> T | None:
        """The child with the most room, of several the one that got it first; None: no child has `share`."""
        child = max(self._left, key=self._left.__getitem__, default=None)
        return child if child is not None and self._left[child] >= share else None

    def take(self, child: T, share: int) -> None:
        self._left[child] -= share

    def give(self, child: T, share: int) -> None:
        self._left[child] = self._left.pop(child) + share
