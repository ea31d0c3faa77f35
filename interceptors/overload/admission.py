"""Counts calls whose requests arrive, that wait for the work and are in it, and admits them to it by priority.

A call counts against the limit from the moment its request is complete, because the work is what is scarce: neither an hour of
live speech nor a client that sends nothing keeps an engine busy. Calls that arrive together all find the same place free; so one
whose request came within a moment (`GRACE`) is judged again when it is there, and refused if others have taken the place.

Long calls have places and a limit of their own: a call that turns out to be long moves there, so that short ones are neither
refused because long ones hold the places, nor their limit lowered because long ones wait for each other.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from interceptors.calls.hooks import EndReading, WorkTimer
from interceptors.calls.refusal import CallRefusedError
from interceptors.handlers.arrivals import Arrival, Arrivals, WholeReads
from interceptors.overload.places import Places
from interceptors.overload.upload_memory import Held, UploadMemory

GRACE = 1.0
"""Seconds after its admission up to which a call is refused when its request is complete and no place is free; a longer upload
has cost its client too much for that, and waits."""
FREE_BYTES: Final = 64 * 1024
"""Of each upload, that do not count: so much the transport lets every client send ahead. Captions, and a minute of live speech,
are never held back."""


class Priority(IntEnum):
    """Classes of calls; the lowest is refused first."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


@dataclass(eq=False, slots=True)
class AdmittedCall:
    """One call from its admission to its end: what hooks.Admission lends the servicer."""

    control: AdmissionControl
    arrival: Arrival
    priority: Priority
    share: float
    """Of the limit, that its class may use."""
    bypass: bool
    """Counts, but is never refused and never waits."""
    began: float
    """The event loop's time, s; so is `deadline`."""
    deadline: float | None
    kept: bool
    """Whether the servicer keeps what it receives, as an upload."""
    held: Held | None = None
    """Set once it counts in the memory."""
    size: int = 0
    """Bytes received."""
    is_followed: bool = False
    """Whether it is worked on without a place while its request arrives."""
    whole: bool = False
    """Whether it has a place for a request of one message."""
    place: asyncio.Future[None] | None = None
    """Set while it waits for the work; done when it may begin."""
    places: Places | None = None
    """Where it holds a place, since `since`."""
    since: float = 0.0

    async def read(self, end: EndReading, *, whole: bool) -> None:
        """See hooks.Admission."""
        if self.arrival.ended is not None:
            raise self.arrival.ended
        if whole:
            await self.control.whole_reads.begin(self.arrival)
            self.whole = True
        self.arrival.last = self.control.now()
        self.arrival.end = end

    async def received(self, size: int) -> None:
        """See hooks.Admission."""
        self.size += size
        if self.kept and self.size > FREE_BYTES:
            self.arrival.held = True
            try:
                if self.held is None:
                    self.held = Held(self.arrival.owner)
                await self.control.memory.take(self.held, size if self.held.size else self.size)
            finally:
                self.arrival.held = False
        self.arrival.last = self.control.now()

    def consumed(self, size: int) -> None:
        """See hooks.Admission."""
        self.size -= size
        if self.held is not None:
            self.control.memory.give_back(self.held, size)

    def arrived(self) -> None:
        """See hooks.Admission."""
        self.control.arrived(self)

    def followed(self) -> None:
        """See hooks.Admission."""
        self.control.followed(self)

    def working(self) -> AbstractAsyncContextManager[WorkTimer]:
        """See hooks.Admission."""
        return self.control.working(self)

    async def prolong(self) -> None:
        """See hooks.Admission."""
        await self.control.prolong(self)


@dataclass(slots=True)
class Counts:
    """Calls by where they are."""

    on_the_way: int
    waiting: int
    at_work: int
    long: int
    """At work or waiting for it, among the long ones."""


@dataclass(slots=True)
class AdmissionControl:
    """`now`: the event loop's time. `full`: makes the refusal for a call that finds no place.

    Memory: one AdmittedCall for each call admitted.
    """

    places: Places
    """Of all calls, until they turn out to be long."""
    long_places: Places
    now: Callable[[], float]
    full: Callable[[], CallRefusedError]
    arrivals: Arrivals
    whole_reads: WholeReads
    memory: UploadMemory
    _arrived: set[AdmittedCall] = field(default_factory=set)
    """Calls with a complete request, between reading it and the work."""

    @property
    def counts(self) -> Counts:
        places, long = self.places, self.long_places
        return Counts(len(self.arrivals), places.waiting, places.taken, long.waiting + long.taken)

    def has_room(self, share: float) -> bool:
        """Whether a call may be admitted whose class may use `share` of the limit."""
        limit = self.places.limit
        if limit is None:
            return True
        # At least one, whatever the share: a class must not starve while the server is idle.
        allowed = max(1, math.floor(limit.calls * share + 0.5))
        # Waiting calls need not be counted: they wait because every place is taken.
        return len(self._arrived) + self.places.taken < allowed

    def admit(
        self,
        owner: str,
        priority: Priority = Priority.NORMAL,
        deadline: float | None = None,
        *,
        share: float = 1.0,
        bypass: bool = False,
        kept: bool = False,
    ) -> AdmittedCall:
        """A call of `owner` whose request may be read now. `deadline`: the event loop's time, s."""
        now = self.now()
        arrival = Arrival(owner, now)
        self.arrivals.enter(arrival)
        return AdmittedCall(self, arrival, priority, share, bypass, now, deadline, kept)

    def arrived(self, call: AdmittedCall) -> None:
        """The request is complete. Raises CallRefusedError."""
        self._end_arrival(call)
        if call.is_followed:
            return
        if not call.bypass and self.now() - call.began < GRACE and not self.has_room(call.share):
            raise self.full()
        self._arrived.add(call)

    def followed(self, call: AdmittedCall) -> None:
        """The call counts on its way only: its engine bounds how many of these there are."""
        call.is_followed = True
        self._arrived.discard(call)

    def leave(self, call: AdmittedCall) -> None:
        """The call is over. Idempotent."""
        self._end_arrival(call)
        self._arrived.discard(call)
        if call.held is not None:
            self.memory.release(call.held)

    def _end_arrival(self, call: AdmittedCall) -> None:
        self.arrivals.leave(call.arrival)
        if call.whole:
            call.whole = False
            self.whole_reads.end(call.arrival.owner)

    @asynccontextmanager
    async def working(self, call: AdmittedCall) -> AsyncIterator[WorkTimer]:
        """Wait for a place, hold it, and adapt its limit to how it went. Raises CallRefusedError."""
        self._end_arrival(call)
        self._arrived.discard(call)
        await self._take(call, self.places)
        timer = WorkTimer()
        try:
            yield timer
        finally:
            if call.places is not None:
                call.places.finish(call, timer, call.since)
                call.places = None

    async def prolong(self, call: AdmittedCall) -> None:
        """Give up the call's place for one among the long ones. Raises CallRefusedError."""
        if call.places is self.places:
            call.places = None
            self.places.give_back()
            await self._take(call, self.long_places)

    async def _take(self, call: AdmittedCall, places: Places) -> None:
        await places.take(call)
        call.places, call.since = places, self.now()
