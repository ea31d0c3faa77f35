"""Not more than can be served: calls over the limit are told at once to come back, before anything of them is read."""

from __future__ import annotations

import logging
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Final

import grpc

from interceptors.calls.call import Call, Context, current_call
from interceptors.calls.refusal import CallRefusedError
from interceptors.handlers.base import CallInterceptor
from interceptors.overload.admission import Admission, Counts, Priority, Visit, arrive
from interceptors.overload.limit import AdaptiveLimit
from interceptors.overload.pressure import Level, Pressure

log = logging.getLogger("interceptors.overload.overload")

ADMIN: Final = "admin"
"""Scope of those who look after the server, and get in when nobody else does."""

SHARES: Final[Mapping[Priority, float]] = {Priority.LOW: 0.7, Priority.NORMAL: 0.9, Priority.HIGH: 1.0}
"""Of the limit, in use by anybody, up to which a class gets in: what is above stays for the classes above it."""
PRESSED_SHARES: Final[Mapping[Priority, float]] = {Priority.LOW: 0.3, Priority.NORMAL: 0.7, Priority.HIGH: 1.0}
"""The same while memory or CPU are short."""

WAIT_TIMEOUT: Final = 10.0
"""Seconds a call that is uploaded waits for a place: its sender has paid for the upload, so it is not turned away lightly."""
UPLOADS: Final = 256
"""Calls between the door and the work, at most. They keep no engine busy, but each has a buffer and a stream."""

_RETRY_FIRST, _RETRY_LAST = 1.0, 30.0
"""Seconds a caller is told to stay away where as good as none is refused, and at most."""
_MEMORY = 10.0
"""Seconds over which it is remembered (1/e) how many were let in and refused."""


def is_admin(call: Call) -> bool:
    """Whether the caller's credential itself makes it an administrator."""
    return call.principal is not None and ADMIN in call.principal.scopes


class Overload(CallInterceptor):
    """Refuses with UNAVAILABLE and a time to come back. The servicer does its work inside of `admission.working`."""

    def __init__(
        self,
        limit: AdaptiveLimit | None,
        *,
        exempt: Collection[str],
        priority: Callable[[Call], Priority],
        expected_seconds: Callable[[], float] = lambda: 0.0,
        pressure: Pressure | None = None,
        spared: Callable[[Call], bool] = is_admin,
        patience: float = WAIT_TIMEOUT,
        uploads: int = UPLOADS,
        now: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`limit` None: there is none, and only deadlines, memory and `uploads` are looked at.

        `exempt`: methods that always pass and count for nothing. `spared`: callers that always pass. `expected_seconds`: a
        call let in now will wait for the engine, 0 where that is not known. `now` is the event loop's clock; `jitter` 0..1.
        """
        self.refused: Counter[str] = Counter()
        """Calls by reason, for metrics."""
        self._limit = limit
        self._exempt = frozenset(exempt)
        self._priority = priority
        self._expected = expected_seconds
        self._pressure = pressure
        self._spared = spared
        self._uploads = uploads
        self._now = now
        self._admission = Admission(limit, now, self._full, patience)
        self._crowd = _Crowd(now, jitter)

    @property
    def counts(self) -> Counts:
        """How many calls are where, for metrics."""
        return self._admission.counts

    @property
    def limit(self) -> float:
        """Calls that may be worked on at a time now; infinite without a limit. For metrics."""
        return math.inf if self._limit is None else self._limit.calls

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        if method in self._exempt:
            yield
            return
        call = current_call()
        spared = call is not None and self._spared(call)
        priority = Priority.HIGH if spared or call is None else self._priority(call)
        left = context.time_remaining()
        if not spared:
            self._check(priority, left)
        visit = Visit(priority, spared, None if left is None else self._now() + left)
        self._crowd.let_in()
        self._admission.enter(visit)
        arrive(self._admission, visit)
        try:
            yield
        finally:
            self._admission.leave(visit)

    def _check(self, priority: Priority, left: float | None) -> None:
        level = self._pressure.level if self._pressure is not None else Level.NONE
        if level is Level.CRITICAL:
            raise self._refusal("SERVER_OVERLOADED", "the server is short of memory; try again later")
        share = (SHARES if level is Level.NONE else PRESSED_SHARES)[priority]
        if not self._admission.has_room(share) or self._admission.counts.on_the_way >= self._uploads:
            raise self._full()
        if left is not None:
            wait = self._expected()
            if left <= wait:
                message = f"the call has {max(0.0, left):.1f} s left and would wait for {wait:.1f} s before its turn"
                raise self._refusal("DEADLINE_UNREACHABLE", message)

    def _full(self) -> CallRefusedError:
        return self._refusal("SERVER_OVERLOADED", "the server has more to do than it can; try again later")

    def _refusal(self, reason: str, message: str) -> CallRefusedError:
        self.refused[reason] += 1
        if self._crowd.refuse():
            counts = self.counts
            log.warning(
                "calls are being refused: limit %.1f, %d at work, %d waiting, %d on their way",
                self.limit,
                counts.at_work,
                counts.waiting,
                counts.on_the_way,
            )
        return CallRefusedError(grpc.StatusCode.UNAVAILABLE, reason, message, retry_after=self._crowd.retry_after())


class _Crowd:
    """How many were let in and refused lately, each weighing less the longer ago it was."""

    def __init__(self, now: Callable[[], float], jitter: Callable[[], float]) -> None:
        self._now = now
        self._jitter = jitter
        self._in = self._out = 0.0
        self._at = now()

    def let_in(self) -> None:
        self._fade()
        self._in += 1

    def refuse(self) -> bool:
        """Whether it is the first one for a while."""
        self._fade()
        first = self._out < 0.1
        self._out += 1
        return first

    def retry_after(self) -> float:
        """Seconds until another try.

        With nine refused for every one let in it takes ten times as long to serve them all, so they are told to stay away so
        long; and each for another time: told the same, they would all be back at once.
        """
        seconds = _RETRY_FIRST * (1 + self._out / max(1.0, self._in))
        return min(_RETRY_LAST, seconds) * (0.5 + self._jitter())

    def _fade(self) -> None:
        now = self._now()
        faded = math.exp(-(now - self._at) / _MEMORY)
        self._in, self._out, self._at = self._in * faded, self._out * faded, now
