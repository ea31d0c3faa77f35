"""The order in which waiting items are taken, one by one or in batches: fair between clients.

Start-time fair queueing (Goyal, Vin, Cheng 1996) at the granularity of batches. Every client has a virtual time, which its
items advance by their size; the client furthest behind goes first. Nothing in here waits or reads a clock.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final, Generic, TypeVar

T = TypeVar("T", bound=Hashable)

_LOOKAHEAD: Final = 64
"""Items of one client that may overtake its oldest where lengths must match: enough to find similar ones, and bounded."""
_PASSED: Final = 3
"""Other items of a client that may be taken before a patient one."""
_MIN_SWEEP: Final = 64  # idle clients remembered before it is worth looking for some to forget
_BATCHES_A_STEP: Final = 64  # consecutive batches that fitted into memory, after which the budget is raised by a step
_BUDGET_STEPS: Final = 8  # steps from nothing to the full budget


class TokenBudget:
    """Tokens of one batch; reduced for a while after the device ran out of memory."""

    def __init__(self, full: int) -> None:
        self.current = full
        self._full = full
        self._fitted = 0

    def record_success(self) -> None:
        """A batch fitted into memory."""
        self._fitted += 1
        if self._fitted >= _BATCHES_A_STEP:
            self._fitted = 0
            self.current = min(self._full, self.current + max(1, self._full // _BUDGET_STEPS))

    def record_out_of_memory(self, computed: int) -> None:
        """A batch of `computed` tokens did not fit: allow half of it, or less if it was a single item over the budget."""
        self._fitted = 0
        self.current = max(1, min(self.current, computed // 2))


@dataclass(slots=True)
class Room:
    """What one batch holds so far, and whether more fits. Sizes are the engine's tokens.

    `max_padding`: share of the computed tokens that may be padding, for a device that computes longest * count tokens; None
    for a device that computes the sum of the sizes.
    """

    budget: int
    max_items: int
    max_padding: float | None = None
    count: int = field(default=0, init=False)
    tokens: int = field(default=0, init=False)
    longest: int = field(default=0, init=False)

    @property
    def computed(self) -> int:
        """Tokens the device computes, padding included."""
        return self.tokens if self.max_padding is None else self.longest * self.count

    @property
    def full(self) -> bool:
        """Whether not even the smallest item fits."""
        return self.count >= self.max_items or (self.count > 0 and self.computed >= self.budget)

    def admits(self, size: int) -> bool:
        """Whether an item of this size fits if not `full`. The first always does: one over the budget runs alone."""
        if self.count == 0:
            return True
        tokens = self.tokens + size
        if self.max_padding is None:
            return tokens <= self.budget
        computed = max(self.longest, size) * (self.count + 1)
        return computed <= self.budget and computed - tokens <= self.max_padding * computed

    def add(self, size: int) -> None:
        self.count += 1
        self.tokens += size
        self.longest = max(self.longest, size)


@dataclass(eq=False, slots=True)
class _Client(Generic[T]):
    name: str
    virtual: int
    number: int  # in order of arrival, for clients that were never served
    served: int = 0  # serial number of the last item served; 0: none
    overtaken: int = 0  # later items served before the oldest one
    passed: int = 0  # others taken since a patient item was, while one waits
    waiting: OrderedDict[T, int] = field(default_factory=OrderedDict)  # a dict finds its first key slowly after deletions
    patient: OrderedDict[T, int] = field(default_factory=OrderedDict)

    @property
    def items(self) -> Iterator[tuple[T, int]]:
        """With their sizes, in the order they are taken."""
        lines = (self.patient, self.waiting) if self.passed >= _PASSED else (self.waiting, self.patient)
        return chain.from_iterable(line.items() for line in lines)

    def discard(self, item: T) -> int:
        """Its size."""
        line = self.waiting if item in self.waiting else self.patient
        return line.pop(item)

    @property
    def turn(self) -> tuple[int, int, int, _Client[T]]:
        """The smallest goes first."""
        return self.virtual, self.served, self.number, self


class FairQueue(Generic[T]):
    """Items by client, taken in batches. Clients with items waiting get equal shares of the tokens.

    The shares of two clients that always have items waiting differ by at most one batch and one item of each, in tokens. A
    new client starts level with the client that leads the newest batch, and so leads the next one.
    """

    def __init__(self, capacity: int) -> None:
        """`capacity`: the most items that wait at a time. Not enforced here: it is the number of clients to account for."""
        # Virtual time is counted in tokens * capacity: an item advances its client by its tokens `capacity` times, and the
        # whole queue by its tokens once, the smallest share a client can be due. Were the queue advanced by its leaders
        # alone, a stream of new clients, each starting at its time, would hold it still: a client that was served once would
        # never be served again, and no client could be forgotten.
        self.tokens = 0
        """Sizes of the items waiting, summed up."""
        self._capacity = max(capacity, 1)
        self._now = 0
        self._serial = 0
        self._owners: dict[T, _Client[T]] = {}
        self._clients: dict[str, _Client[T]] = {}  # with items waiting
        self._ahead: dict[str, _Client[T]] = {}  # idle, and ahead of the queue's virtual time
        self._sweep_at = _MIN_SWEEP

    def __len__(self) -> int:
        """Items waiting."""
        return len(self._owners)

    def __iter__(self) -> Iterator[T]:
        """Items waiting, oldest first."""
        return iter(self._owners)

    @property
    def clients(self) -> int:
        """Clients with items waiting."""
        return len(self._clients)

    @property
    def idle_clients(self) -> int:
        """Clients without items waiting whose virtual time is still remembered."""
        return len(self._ahead)

    def add(self, item: T, client: str, size: int, *, patient: bool = False) -> None:
        """Append an item, new to the queue, to those of its client. `size` is 1 or more.

        `patient`: the client's other items go first, though three at a time at most.
        """
        owner = self._clients.get(client)
        if owner is None:
            self._serial += 1
            owner = self._ahead.pop(client, None) or _Client(client, self._now, self._serial)
            owner.virtual = max(owner.virtual, self._now)  # no credit for time not used
            owner.overtaken = 0
            self._clients[client] = owner
        (owner.patient if patient else owner.waiting)[item] = size
        self._owners[item] = owner
        self.tokens += size

    def discard(self, item: T) -> None:
        """Remove an item if it is there."""
        owner = self._owners.pop(item, None)
        if owner is None:
            return
        self.tokens -= owner.discard(item)
        if not (owner.waiting or owner.patient):
            del self._clients[owner.name]
            self._ahead[owner.name] = owner
            if len(self._ahead) > self._sweep_at:  # forget those the queue has caught up with, in amortised constant time
                self._ahead = {name: client for name, client in self._ahead.items() if client.virtual > self._now}
                self._sweep_at = max(_MIN_SWEEP, 2 * len(self._ahead))

    def take(self, room: Room) -> list[T]:
        """Remove and return the items that fill an empty `room`; none if none wait.

        The oldest item of the client furthest behind is always taken. A client whose item does not fit keeps its virtual time
        while others fill the batch.
        """
        turns = [client.turn for client in self._clients.values()]
        heapq.heapify(turns)
        if turns:
            self._now = max(self._now, turns[0][0])
        taken: list[T] = []
        while turns and not room.full:
            client = turns[0][-1]
            found = self._first_fitting(client, room)
            if found is None:
                heapq.heappop(turns)
                continue
            item, size = found
            room.add(size)
            taken.append(item)
            self._serve(client, item, size)
            if client.waiting or client.patient:
                heapq.heapreplace(turns, client.turn)
            else:
                heapq.heappop(turns)
        self._now += room.tokens
        return taken

    def _first_fitting(self, client: _Client[T], room: Room) -> tuple[T, int] | None:
        """The oldest item that fits. Later ones than the first are considered only where lengths must match."""
        depth = 1 if room.max_padding is None else 1 + _LOOKAHEAD - client.overtaken
        return next(((item, size) for item, size in islice(client.items, depth) if room.admits(size)), None)

    def _serve(self, client: _Client[T], item: T, size: int) -> None:
        # Without the count, the oldest item could be overtaken for ever: its client, served with
        # the later ones, would never fall behind and lead.
        client.overtaken = 0 if item is next(client.items)[0] else client.overtaken + 1
        client.passed = client.passed + 1 if client.patient and item in client.waiting else 0
        self._serial += 1
        client.served = self._serial
        client.virtual += size * self._capacity
        self.discard(item)
