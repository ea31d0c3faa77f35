"""The calls whose requests are still arriving: how many there may be, and whose make room when there are too many.

Such a call keeps no engine busy, but a stream of the transport, a task and up to a whole message in the transport's buffers, for
as long as its client likes to take. No caller can keep others out with them: when all places are taken, the caller that has most
of them gives one up, that in which nothing has arrived for longest, to any caller that has fewer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from interceptors.calls.hooks import EndReading
from interceptors.calls.refusal import CallRefusedError


@dataclass(eq=False, slots=True)
class Arrival:
    """One call whose request is arriving. `last`: when something of it last came, in the seconds of the registry's clock."""

    owner: str
    last: float
    end: EndReading | None = None
    """Set once its request is read."""
    place: asyncio.Future[None] | None = None
    """Set while it waits to be read."""
    ended: CallRefusedError | None = None
    """Set when it had to make room."""
    held: bool = False
    """Whether the server itself keeps its client waiting."""

    def make_room(self, refusal: CallRefusedError) -> None:
        """End the call, at once if its request is being read, else before it is."""
        self.ended = refusal
        if self.end is not None:
            self.end(refusal)
        elif self.place is not None and not self.place.done():
            self.place.set_exception(refusal)


@dataclass(slots=True)
class Arrivals:
    """`most` places in all. `evicted`: makes the refusal of a call that makes room, and counts it."""

    most: int
    evicted: Callable[[Arrival], CallRefusedError]
    _by_owner: dict[str, dict[Arrival, None]] = field(default_factory=dict)
    _count: int = 0

    def __len__(self) -> int:
        return self._count

    def of(self, owner: str) -> int:
        """How many one caller has."""
        return len(self._by_owner.get(owner, ()))

    @property
    def owners(self) -> int:
        """Callers that have any."""
        return len(self._by_owner)

    def make_room(self, owner: str) -> bool:
        """Whether there is a place for one more call of `owner`, if need be after another caller has given up one."""
        if self._count < self.most:
            return True
        largest = max(self._by_owner.values(), key=len)
        if len(largest) <= self.of(owner) + 1:
            return False
        stalled = min(largest, key=lambda arrival: (arrival.held, arrival.last))
        self.leave(stalled)
        stalled.make_room(self.evicted(stalled))
        return True

    def enter(self, arrival: Arrival) -> None:
        """Take a place, whether there is one or not."""
        self._by_owner.setdefault(arrival.owner, {})[arrival] = None
        self._count += 1

    def leave(self, arrival: Arrival) -> None:
        """Idempotent."""
        own = self._by_owner.get(arrival.owner)
        if own is None or arrival not in own:
            return
        del own[arrival]
        self._count -= 1
        if not own:
            del self._by_owner[arrival.owner]


@dataclass(slots=True)
class WholeReads:
    """Unary requests that are being read: `each` at a time of one caller, whose others wait in their order.

    Until such a request is complete, nobody but the transport knows how much of it is there: it may be as large as the largest
    message. The callers do not wait for each other.
    """

    each: int
    _busy: dict[str, int] = field(default_factory=dict)
    _waiting: dict[str, deque[asyncio.Future[None]]] = field(default_factory=dict)

    async def begin(self, arrival: Arrival) -> None:
        """Wait for a place. Raises CallRefusedError if the call has to make room meanwhile."""
        owner = arrival.owner
        busy = self._busy.get(owner, 0)
        if busy < self.each:
            self._busy[owner] = busy + 1
            return
        place = arrival.place = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(owner, deque())
        queue.append(place)
        try:
            await place
        except BaseException:
            if place in queue:
                queue.remove(place)
                if not queue:
                    del self._waiting[owner]
            elif not place.cancelled() and place.exception() is None:  # cancelled in the moment it was given the place
                self.end(owner)
            raise

    def end(self, owner: str) -> None:
        """Give the place to the next one of the same caller."""
        queue = self._waiting.get(owner)
        while queue:
            place = queue.popleft()
            if not queue:
                del self._waiting[owner]
            if not place.done():
                place.set_result(None)
                return
        if self._busy[owner] > 1:
            self._busy[owner] -= 1
        else:
            del self._busy[owner]
