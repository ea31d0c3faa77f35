"""Who is in: the calls on their way to the work, those that wait for it, and those it is done for.

A call counts from the end of its upload, for it is the work that is scarce: somebody who speaks into a stream for an hour
keeps no engine busy. Between the door and the work it counts for a moment only (`GRACE`), which keeps a burst of
calls, whose bodies come at once, from passing the door together on the strength of one free place.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import IntEnum

from interceptors.calls.refusal import CallRefusedError
from interceptors.overload.limit import AdaptiveLimit

GRACE = 1.0
"""Seconds for which a call on its way to the work counts as if it were there."""
_EARLY = 0.1
"""Seconds before its deadline from which a call that ends has met it: the caller's own clock may end it a moment before ours."""


class Priority(IntEnum):
    """Classes of calls; the lowest is shed first."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


@dataclass(eq=False, slots=True)
class Visit:
    """One call from the door to its end."""

    priority: Priority
    exempt: bool
    """Counts, and is never held up."""
    deadline: float | None
    """The event loop's time, s."""
    room: asyncio.Future[None] | None = None
    """While it waits for the work."""


class Work:
    """Filled in by who has done it."""

    waited = 0.0
    worked: float | None = None

    def done(self, waited: float, worked: float) -> None:
        """Seconds the call waited for whoever works, and seconds they worked."""
        self.waited, self.worked = waited, worked


@dataclass(slots=True)
class Counts:
    """How many calls are where."""

    on_the_way: int
    waiting: int
    at_work: int


@dataclass(slots=True)
class Admission:
    """`limit` None: no limit. `patience`: seconds an uploaded call waits for a place. `now`: the event loop's time.

    `full`: the refusal for who has waited in vain. Memory: a visit for every call that is in.
    """

    limit: AdaptiveLimit | None
    now: Callable[[], float]
    full: Callable[[], CallRefusedError]
    patience: float
    _on_the_way: set[Visit] = field(default_factory=set)
    _fresh: dict[Visit, float] = field(default_factory=dict)
    """Those that count, with the time until which they do, the oldest first."""
    _waiting: list[Visit] = field(default_factory=list)
    _at_work: int = 0

    @property
    def counts(self) -> Counts:
        return Counts(len(self._on_the_way), len(self._waiting), self._at_work)

    def has_room(self, share: float) -> bool:
        """Whether one more may come in for whom `share` of the limit is."""
        if self.limit is None:
            return True
        now = self.now()
        while self._fresh:
            oldest = next(iter(self._fresh))
            if self._fresh[oldest] > now:
                break
            del self._fresh[oldest]
        # One at least, whatever the share: a class that is alone must not starve beside an idle server.
        most = max(1, math.floor(self.limit.calls * share + 0.5))
        # Those that wait need not be counted: they do so because every place there is is taken.
        return len(self._fresh) + self._at_work < most

    def enter(self, visit: Visit) -> None:
        """It is in; what it sends is read."""
        self._on_the_way.add(visit)
        self._fresh[visit] = self.now() + GRACE

    def leave(self, visit: Visit) -> None:
        """It is out, wherever it was. Idempotent."""
        self._on_the_way.discard(visit)
        self._fresh.pop(visit, None)

    @asynccontextmanager
    async def working(self, visit: Visit) -> AsyncIterator[Work]:
        """Wait for a place, take it, and learn from how it went. Raises RefusedError."""
        await self._place(visit)
        since, work = self.now(), Work()
        try:
            yield work
        finally:
            now, at_work = self.now(), self._at_work
            self._at_work -= 1
            if self.limit is not None:
                if work.worked is not None:
                    self.limit.observe(work.waited, work.worked, since=since, now=now, at_work=at_work)
                elif visit.deadline is not None and visit.deadline - _EARLY <= now:
                    # Those that are served in time are not all: where nobody waits for longer than the limit thinks fine,
                    # because nobody has that long, it would grow and grow over calls that come to nothing.
                    self.limit.observe(now - since, None, since=since, now=now, at_work=at_work)
            self._let_in()

    async def _place(self, visit: Visit) -> None:
        self.leave(visit)
        if visit.exempt or self.limit is None or (not self._waiting and self._at_work < self.limit.calls):
            self._at_work += 1
            return
        if len(self._waiting) >= self.limit.calls:
            raise self.full()
        visit.room = asyncio.get_running_loop().create_future()
        self._waiting.append(visit)
        self._let_in()  # the one at the head may have been in the way of this one
        left = math.inf if visit.deadline is None else visit.deadline - self.now()
        try:
            async with asyncio.timeout(min(self.patience, left)):
                await visit.room
        except BaseException as error:
            if visit in self._waiting:
                self._waiting.remove(visit)
            else:  # it was given a place in the very moment it gave up
                self._at_work -= 1
                self._let_in()
            if isinstance(error, TimeoutError):
                raise self.full() from None
            raise

    def _let_in(self) -> None:
        """Those that wait, the highest priority first, the oldest of it first."""
        while self._waiting and self.limit is not None and self._at_work < self.limit.calls:
            first = max(self._waiting, key=lambda visit: visit.priority)  # max is the first of equals
            self._waiting.remove(first)
            self._at_work += 1
            if first.room is not None and not first.room.done():
                first.room.set_result(None)


_current: ContextVar[tuple[Admission, Visit] | None] = ContextVar("admission", default=None)


def arrive(admission: Admission, visit: Visit) -> None:
    """For the rest of this call. gRPC gives every call a task, and so a context, of its own: there is nothing to undo."""
    _current.set((admission, visit))


@asynccontextmanager
async def working() -> AsyncIterator[Work]:
    """For the servicer, around the work alone, once everything is received; it says `done` when it has a result.

    Raises RefusedError where there is no room for too long. Outside of a call that was admitted it does nothing.
    """
    current = _current.get()
    if current is None:
        yield Work()
        return
    admission, visit = current
    async with admission.working(visit) as work:
        yield work


def no_room() -> CallRefusedError | None:
    """For the servicer, where it turns a call away for want of room in a queue of its own. None outside of an admitted call."""
    current = _current.get()
    return None if current is None else current[0].full()
