"""Counts calls whose requests arrive, that wait for the work and are in it, and admits them to it by priority.

A call counts against the limit from the moment its request is complete, because the work is what is scarce: neither an hour of
live speech nor a client that sends nothing keeps an engine busy. Calls that arrive together all find the same place free; so one
whose request came within a moment (`GRACE`) is judged again when it is there, and refused if others have taken the place.
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
from interceptors.overload.arrivals import Arrival, Arrivals, WholeReads
from interceptors.overload.limit import AdaptiveLimit
from interceptors.overload.upload_memory import Held, UploadMemory

GRACE = 1.0
"""Seconds after its admission up to which a call is refused when its request is complete and no place is free; a longer upload
has cost its client too much for that, and waits."""
FREE_BYTES: Final = 64 * 1024
"""Of each upload, that do not count: so much the transport lets every client send ahead. Captions, and a minute of live speech,
are never held back."""
_EARLY = 0.1
"""Seconds before its deadline from which a cancelled call counts as expired: the client's clock may end it before ours."""


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
    held: Held
    kept: bool
    """Whether the servicer keeps what it receives, as an upload."""
    size: int = 0
    """Bytes received."""
    whole: bool = False
    """Whether it has a place for a request of one message."""
    place: asyncio.Future[None] | None = None
    """Set while it waits for the work; done when it may begin."""

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
                await self.control.memory.take(self.held, size if self.held.size else self.size)
            finally:
                self.arrival.held = False
        self.arrival.last = self.control.now()

    def arrived(self) -> None:
        """See hooks.Admission."""
        self.control.arrived(self)

    def working(self) -> AbstractAsyncContextManager[WorkTimer]:
        """See hooks.Admission."""
        return self.control.working(self)


@dataclass(slots=True)
class Counts:
    """Calls by where they are."""

    on_the_way: int
    waiting: int
    at_work: int


@dataclass(slots=True)
class AdmissionControl:
    """`limit` None: no limit. `timeout`: seconds an uploaded call waits for a place. `now`: the event loop's time.

    `full`: makes the refusal for a call that finds no place. Memory: one AdmittedCall for each call admitted.
    """

    limit: AdaptiveLimit | None
    now: Callable[[], float]
    full: Callable[[], CallRefusedError]
    timeout: float
    arrivals: Arrivals
    whole_reads: WholeReads
    memory: UploadMemory
    _arrived: set[AdmittedCall] = field(default_factory=set)
    """Calls with a complete request, between reading it and the work."""
    _waiting: list[AdmittedCall] = field(default_factory=list)
    _at_work: int = 0

    @property
    def counts(self) -> Counts:
        return Counts(len(self.arrivals), len(self._waiting), self._at_work)

    def has_room(self, share: float) -> bool:
        """Whether a call may be admitted whose class may use `share` of the limit."""
        if self.limit is None:
            return True
        # At least one, whatever the share: a class must not starve while the server is idle.
        allowed = max(1, math.floor(self.limit.calls * share + 0.5))
        # Waiting calls need not be counted: they wait because every place is taken.
        return len(self._arrived) + self._at_work < allowed

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
        return AdmittedCall(self, arrival, priority, share, bypass, now, deadline, Held(owner), kept)

    def arrived(self, call: AdmittedCall) -> None:
        """The request is complete. Raises CallRefusedError."""
        self._end_arrival(call)
        if not call.bypass and self.now() - call.began < GRACE and not self.has_room(call.share):
            raise self.full()
        self._arrived.add(call)

    def leave(self, call: AdmittedCall) -> None:
        """The call is over. Idempotent."""
        self._end_arrival(call)
        self._arrived.discard(call)
        self.memory.release(call.held)

    def _end_arrival(self, call: AdmittedCall) -> None:
        self.arrivals.leave(call.arrival)
        if call.whole:
            call.whole = False
            self.whole_reads.end(call.arrival.owner)

    @asynccontextmanager
    async def working(self, call: AdmittedCall) -> AsyncIterator[WorkTimer]:
        """Wait for a place, hold it, and adapt the limit to how it went. Raises CallRefusedError."""
        await self._take_place(call)
        since, timer = self.now(), WorkTimer()
        try:
            yield timer
        finally:
            now, at_work = self.now(), self._at_work
            self._at_work -= 1
            if self.limit is not None:
                if timer.worked is not None:
                    self.limit.observe(timer.waited, timer.worked, since=since, now=now, at_work=at_work)
                elif call.deadline is not None and call.deadline - _EARLY <= now:
                    # Expired calls count too: where deadlines are shorter than the wait that the limit accepts, the calls that
                    # finish all waited briefly, and the limit would keep growing over calls that never finish.
                    self.limit.observe(now - since, None, since=since, now=now, at_work=at_work)
            self._fill_places()

    async def _take_place(self, call: AdmittedCall) -> None:
        self._end_arrival(call)
        self._arrived.discard(call)
        if call.bypass or self.limit is None or (not self._waiting and self._at_work < self.limit.calls):
            self._at_work += 1
            return
        if len(self._waiting) >= self.limit.calls:
            raise self.full()
        call.place = asyncio.get_running_loop().create_future()
        self._waiting.append(call)
        self._fill_places()
        left = math.inf if call.deadline is None else call.deadline - self.now()
        try:
            async with asyncio.timeout(min(self.timeout, left)):
                await call.place
        except BaseException as error:
            if call in self._waiting:
                self._waiting.remove(call)
            else:  # it was given a place in the moment it gave up
                self._at_work -= 1
                self._fill_places()
            if isinstance(error, TimeoutError):
                raise self.full() from None
            raise

    def _fill_places(self) -> None:
        """Let waiting calls begin: the highest priority first, and of those the oldest."""
        while self._waiting and self.limit is not None and self._at_work < self.limit.calls:
            first = max(self._waiting, key=lambda call: call.priority)  # max is the first of equals
            self._waiting.remove(first)
            self._at_work += 1
            if first.place is not None and not first.place.done():
                first.place.set_result(None)
