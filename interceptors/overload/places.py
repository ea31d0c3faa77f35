"""Places to work in, as many as an adaptive limit allows; calls that find none wait for one, by priority."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from interceptors.calls.hooks import WorkTimer
from interceptors.calls.refusal import CallRefusedError
from interceptors.overload.limit import AdaptiveLimit

if TYPE_CHECKING:
    from interceptors.overload.admission import AdmittedCall

_EARLY: Final = 0.1
"""Seconds before its deadline from which a cancelled call counts as expired: the client's clock may end it before ours."""


@dataclass(slots=True)
class Places:
    """`limit` None: no limit. `timeout`: seconds a call waits for a place. `now`: the event loop's time.

    `full`: makes the refusal for a call that finds no place.
    """

    limit: AdaptiveLimit | None
    now: Callable[[], float]
    full: Callable[[], CallRefusedError]
    timeout: float
    taken: int = 0
    _waiting: list[AdmittedCall] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return len(self._waiting)

    async def take(self, call: AdmittedCall) -> None:
        """Take a place, or wait for one. Raises CallRefusedError."""
        if call.bypass or self.limit is None or (not self._waiting and self.taken < self.limit.calls):
            self.taken += 1
            return
        if len(self._waiting) >= self.limit.calls:
            raise self.full()
        call.place = asyncio.get_running_loop().create_future()
        self._waiting.append(call)
        self._fill()
        left = math.inf if call.deadline is None else call.deadline - self.now()
        try:
            async with asyncio.timeout(min(self.timeout, left)):
                await call.place
        except BaseException as error:
            if call in self._waiting:
                self._waiting.remove(call)
            else:  # it was given a place in the moment it gave up
                self.give_back()
            if isinstance(error, TimeoutError):
                raise self.full() from None
            raise

    def give_back(self) -> None:
        """Return a place: the next call may begin."""
        self.taken -= 1
        self._fill()

    def finish(self, call: AdmittedCall, timer: WorkTimer, since: float) -> None:
        """Return the place that a call took at `since`, and adapt the limit to how it went."""
        now = self.now()
        if self.limit is not None:
            if timer.worked is not None:
                self.limit.observe(timer.waited, timer.worked, since=since, now=now, at_work=self.taken)
            elif call.deadline is not None and call.deadline - _EARLY <= now:
                # Expired calls count too: where deadlines are shorter than the wait that the limit accepts, the calls that
                # finish all waited briefly, and the limit would keep growing over calls that never finish.
                self.limit.observe(now - since, None, since=since, now=now, at_work=self.taken)
        self.give_back()

    def _fill(self) -> None:
        """Let waiting calls begin: the highest priority first, and of those the oldest."""
        while self._waiting and self.limit is not None and self.taken < self.limit.calls:
            first = max(self._waiting, key=lambda call: call.priority)  # max is the first of equals
            self._waiting.remove(first)
            self.taken += 1
            if first.place is not None and not first.place.done():
                first.place.set_result(None)
