"""Who goes next, and with whom: the order in which waiting items are made into batches.

Start-time fair queueing (Goyal, Vin, Cheng 1996) at the grain of batches. Every client has a
virtual time, which its items advance by their size; the client that is furthest behind goes
first. Nothing in here waits or knows the clock.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Generic, TypeVar

T = TypeVar("T", bound=Hashable)

_LOOK: Final = 64
"""Items of one client that may go before its oldest, where lengths must match: enough to find company, and it ends."""

_SWEEP: Final = 64
"""Clients without anything waiting that are remembered before it is worth looking whom to forget."""


_CLEAN: Final = 64
"""Batches in a row that fit into the memory, after which the budget goes up a step again."""

_STEPS: Final = 8
"""Steps from nothing to the full budget."""


class TokenBudget:
    """Tokens of one batch, fewer for a while after the device's memory did not suffice."""

    def __init__(self, full: int) -> None:
        self.in_force = full
        self._full = full
        self._clean = 0

    def sufficed(self) -> None:
        """A batch fitted into the memory."""
        self._clean += 1
        if self._clean >= _CLEAN:
            self._clean = 0
            self.in_force = min(self._full, self.in_force + max(1, self._full // _STEPS))

    def exceeded(self, computed: int) -> None:
        """A batch of `computed` tokens did not. Half of it is the new budget, unless it was over the budget and ran alone."""
        self._clean = 0
        self.in_force = max(1, min(self.in_force, computed // 2))


@dataclass(slots=True)
class Room:
    """What one batch holds so far, and whether more goes in. Sizes are the engine's tokens.

    `max_padding` is the share of the device's work that may be padding, for a device that works
    through longest * count tokens; None: it works through the sum of the sizes alone.
    """

    budget: int
    max_items: int
    max_padding: float | None = None
    count: int = field(default=0, init=False)
    tokens: int = field(default=0, init=False)
    longest: int = field(default=0, init=False)

    @property
    def computed(self) -> int:
        """Tokens the device works through, padding included."""
        return self.tokens if self.max_padding is None else self.longest * self.count

    @property
    def full(self) -> bool:
        """Whether not even the smallest item would go in."""
        return self.count >= self.max_items or (self.count > 0 and self.computed >= self.budget)

    def admits(self, size: int) -> bool:
        """Whether one more of this size goes in if it is not full. The first always does: one over the budget runs alone."""
        if self.count == 0:
            return True
        tokens = self.tokens + size
        if self.max_padding is None:
            return tokens <= self.budget
        computed = max(self.longest, size) * (self.count + 1)
        return computed <= self.budget and computed - tokens <= self.max_padding * computed

    def add(self, size: int) -> None:
        """Count one more in."""
        self.count += 1
        self.tokens += size
        self.longest = max(self.longest, size)


@dataclass(eq=False, slots=True)
class _Client(Generic[T]):
    name: str
    virtual: int
    number: int  # in order of arrival, for clients that were never served
    served: int = 0  # the serial number of the last serving; 0: never
    overtaken: int = 0  # later items that went before the oldest one
    waiting: OrderedDict[T, int] = field(default_factory=OrderedDict)  # a dict finds its first key slowly after deletions


class FairQueue(Generic[T]):
    """Items by client, taken in batches. Every client gets the same tokens while it has something waiting.

    Two clients that always have something waiting are apart by no more than one batch and one
    item of each, in tokens. A newcomer starts level with the client that leads the newest batch,
    and so leads the next one.
    """

    def __init__(self, places: int) -> None:
        """`places`: items that wait at most. The queue does not refuse more, it reckons with as many clients."""
        # Virtual time is counted in tokens * places: an item moves its client by its tokens as
        # often as there are places, and the whole queue by its tokens once. That is the least
        # share a client can have a claim on. Were the queue moved by its leaders alone, a stream
        # of new names, each starting at its time, would hold it still: whoever was served once
        # would never be again, and no name could be forgotten.
        self._places = max(places, 1)
        self._now = 0
        self._tokens = 0
        self._serial = 0
        self._owners: dict[T, _Client[T]] = {}
        self._clients: dict[str, _Client[T]] = {}  # with something waiting
        self._ahead: dict[str, _Client[T]] = {}  # with nothing waiting, and served more than the queue's time
        self._sweep_at = _SWEEP

    def __len__(self) -> int:
        """Items waiting."""
        return len(self._owners)

    def __iter__(self) -> Iterator[T]:
        """Items waiting, oldest first."""
        return iter(self._owners)

    @property
    def tokens(self) -> int:
        """Sizes of the items waiting, summed up."""
        return self._tokens

    @property
    def clients(self) -> int:
        """Clients with something waiting."""
        return len(self._clients)

    @property
    def remembered(self) -> int:
        """Clients with nothing waiting whose turn is still counted."""
        return len(self._ahead)

    def add(self, item: T, client: str, size: int) -> None:
        """Put one item, new to the queue, behind those of its client. `size` is 1 or more."""
        owner = self._clients.get(client)
        if owner is None:
            self._serial += 1
            owner = self._ahead.pop(client, None) or _Client(client, self._now, self._serial)
            owner.virtual = max(owner.virtual, self._now)  # time not used is no credit
            owner.overtaken = 0
            self._clients[client] = owner
        owner.waiting[item] = size
        self._owners[item] = owner
        self._tokens += size

    def discard(self, item: T) -> None:
        """Take one item out, if it is there."""
        owner = self._owners.pop(item, None)
        if owner is None:
            return
        self._tokens -= owner.waiting.pop(item)
        if not owner.waiting:
            del self._clients[owner.name]
            self._ahead[owner.name] = owner
            self._sweep()

    def take(self, room: Room) -> list[T]:
        """Fill an empty `room`; no items if none wait.

        The client furthest behind always has its oldest item in. A client whose item does not go
        in waits with its virtual time, and others fill the batch.
        """
        turns = [(client.virtual, client.served, client.number, client) for client in self._clients.values()]
        heapq.heapify(turns)
        if turns:
            self._now = max(self._now, turns[0][0])
        taken: list[T] = []
        while turns and not room.full:
            client = turns[0][-1]
            item = self._fitting(client, room)
            if item is None:
                heapq.heappop(turns)
                continue
            size = client.waiting[item]
            room.add(size)
            taken.append(item)
            self._serve(client, item, size)
            if client.waiting:
                heapq.heapreplace(turns, (client.virtual, client.served, client.number, client))
            else:
                heapq.heappop(turns)
        self._now += room.tokens
        return taken

    def _fitting(self, client: _Client[T], room: Room) -> T | None:
        """The oldest item that goes in. Only lengths that do not match are reason to look behind the first."""
        depth = 1 if room.max_padding is None else 1 + _LOOK - client.overtaken
        return next((item for item, size in islice(client.waiting.items(), depth) if room.admits(size)), None)

    def _serve(self, client: _Client[T], item: T, size: int) -> None:
        # Without the count, the oldest item could be overtaken for ever: its client, served with
        # the later ones, would never fall behind and lead.
        client.overtaken = 0 if item is next(iter(client.waiting)) else client.overtaken + 1
        self._serial += 1
        client.served = self._serial
        client.virtual += size * self._places
        self.discard(item)

    def _sweep(self) -> None:
        """Forget those the queue has caught up with, at a cost that is constant for each serving."""
        if len(self._ahead) > self._sweep_at:
            self._ahead = {name: client for name, client in self._ahead.items() if client.virtual > self._now}
            self._sweep_at = max(_SWEEP, 2 * len(self._ahead))
