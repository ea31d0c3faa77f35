"""Counts calls on their way to the work, waiting for it and in it, and admits them to it by priority.

A call counts against the limit from the end of its upload, because the work is what is scarce: an hour of live speech keeps
no engine busy. Before that it counts only for a moment (`GRACE`), so that a burst of calls, whose bodies arrive together,
does not pass `has_room` as a whole on the strength of one free place.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from enum import IntEnum

from interceptors.calls.hooks import WorkTimer
from interceptors.calls.refusal import CallRefusedError
from interceptors.overload.limit import AdaptiveLimit

GRACE = 1.0
"""Seconds for which an admitted call that is still uploading counts as if it were at work."""
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
    priority: Priority
    bypass: bool
    """Counts, but is never refused and never waits."""
    deadline: float | None
    """The event loop's time, s."""
    place: asyncio.Future[None] | None = None
    """Set while it waits for the work; done when it may begin."""

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

    `full`: makes the refusal for a call that waited in vain. Memory: one AdmittedCall for each call admitted.
    """

    limit: AdaptiveLimit | None
    now: Callable[[], float]
    full: Callable[[], CallRefusedError]
    timeout: float
    _on_the_way: set[AdmittedCall] = field(default_factory=set)
    _fresh: dict[AdmittedCall, float] = field(default_factory=dict)
    """Uploading calls that count against the limit, with the time until which they do, oldest first."""
    _waiting: list[AdmittedCall] = field(default_factory=list)
    _at_work: int = 0

    @property
    def counts(self) -> Counts:
        return Counts(len(self._on_the_way), len(self._waiting), self._at_work)

    def has_room(self, share: float) -> bool:
        """Whether a call may be admitted whose class may use `share` of the limit."""
        if self.limit is None:
            return True
        now = self.now()
        while self._fresh:
            oldest = next(iter(self._fresh))
            if self._fresh[oldest] > now:
                break
            del self._fresh[oldest]
        # At least one, whatever the share: a class must not starve while the server is idle.
        allowed = max(1, math.floor(self.limit.calls * share + 0.5))
        # Waiting calls need not be counted: they wait because every place is taken.
        return len(self._fresh) + self._at_work < allowed

    def admit(self, priority: Priority, deadline: float | None, *, bypass: bool = False) -> AdmittedCall:
        """A call whose upload may be read now. `deadline`: the event loop's time, s."""
        call = AdmittedCall(self, priority, bypass, deadline)
        self._on_the_way.add(call)
        self._fresh[call] = self.now() + GRACE
        return call

    def leave(self, call: AdmittedCall) -> None:
        """The call is no longer uploading. Idempotent."""
        self._on_the_way.discard(call)
        self._fresh.pop(call, None)

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
        self.leave(call)
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
