"""Refuses calls beyond what the server can do, before anything of them is read, with a time to retry."""

from __future__ import annotations

import logging
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import grpc

from interceptors.calls.call import Call, Context, current_call
from interceptors.calls.refusal import CallRefusedError
from interceptors.calls.security_event import Event, Record, Repeated, SecurityEvent
from interceptors.calls.subject import PEER, subject_of
from interceptors.handlers.arrivals import Arrival, Arrivals, WholeReads
from interceptors.handlers.base import CallInterceptor
from interceptors.overload.admission import AdmissionControl, Counts, Priority
from interceptors.overload.limit import AdaptiveLimit
from interceptors.overload.places import Places
from interceptors.overload.pressure import Level, Pressure
from interceptors.overload.upload_memory import UploadMemory

log = logging.getLogger("interceptors.overload.overload")

ADMIN: Final = "admin"
"""Scope of operators, who get in when the server is full."""

SHARES: Final[Mapping[Priority, float]] = {Priority.LOW: 0.7, Priority.NORMAL: 0.9, Priority.HIGH: 1.0}
"""Share of the limit, used by all calls together, up to which a class is admitted: the rest is kept for the classes above."""
PRESSED_SHARES: Final[Mapping[Priority, float]] = {Priority.LOW: 0.3, Priority.NORMAL: 0.7, Priority.HIGH: 1.0}
"""The same while memory or CPU are short."""

WAIT_TIMEOUT: Final = 10.0
"""Seconds that an uploaded call waits for a place: its upload is paid for, so it is not refused at once."""
ARRIVALS: Final = 256
"""Calls whose requests may be arriving at a time. They keep no engine busy, but each has buffers and a stream."""
WHOLE_READS: Final = 6
"""Unary requests of one caller that are read at a time. With the default limits each may have 23 MB in the transport."""

_RETRY_FIRST, _RETRY_LAST = 1.0, 30.0
"""Seconds of retry-after when hardly any call is refused, and at most."""
_MEMORY = 10.0
"""Time constant (s) with which past admissions and refusals are forgotten."""


def is_admin(call: Call) -> bool:
    """Whether the principal's credential itself grants the admin scope."""
    return call.principal is not None and ADMIN in call.principal.scopes


class Overload(CallInterceptor):
    """Refuses with UNAVAILABLE and retry-after. Lends the servicer `call.admission`, to enter around the work."""

    def __init__(
        self,
        limit: AdaptiveLimit | None,
        *,
        exempt: Collection[str],
        priority: Callable[[Call], Priority],
        expected_seconds: Callable[[], float] = lambda: 0.0,
        pressure: Pressure | None = None,
        bypass: Callable[[Call], bool] = is_admin,
        wait_timeout: float = WAIT_TIMEOUT,
        record: Record = lambda event: None,
        long_limit: AdaptiveLimit | None = None,
        memory: UploadMemory | None = None,
        uploads: Collection[str] = (),
        arrivals: int = ARRIVALS,
        whole_reads: int = WHOLE_READS,
        now: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`limit` None: only deadlines, memory pressure and `arrivals` refuse calls. `long_limit`: of long calls.

        `exempt`: methods that always pass and do not count. `bypass`: calls that always pass but count. `expected_seconds`: the
        time a call admitted now will wait for the engine, 0 if unknown. `memory`: for the requests of `uploads`, methods whose
        servicer keeps what it receives. `now`: the event loop's clock. `jitter`: 0..1.
        """
        self.refused: Counter[str] = Counter()
        """Calls by reason, for metrics."""
        self.draining = False
        """Set it to refuse every new call with SERVER_DRAINING, before the server stops."""
        self._limit = limit
        self._exempt = frozenset(exempt)
        self._priority = priority
        self._expected = expected_seconds
        self._pressure = pressure
        self._bypass = bypass
        self._record = record
        self._uploads = frozenset(uploads)
        self._now = now
        self._control = AdmissionControl(
            Places(limit, now, self._full, wait_timeout),
            Places(long_limit, now, self._full, wait_timeout),
            now,
            self._full,
            Arrivals(arrivals, self._evicted),
            WholeReads(whole_reads),
            memory or UploadMemory(sys.maxsize, 0),
        )
        self._repeated = Repeated(now)
        self._recent = _RecentCalls(now, jitter)

    @property
    def counts(self) -> Counts:
        """Calls by where they are, for metrics."""
        return self._control.counts

    @property
    def memory(self) -> UploadMemory:
        """Of uploads, for metrics."""
        return self._control.memory

    @property
    def limit(self) -> float:
        """Calls that may be worked on at a time now, long ones apart; infinite without a limit. For metrics."""
        return math.inf if self._limit is None else self._limit.calls

    @contextmanager
    def around(self, method: str, context: Context) -> Iterator[None]:
        if method in self._exempt:
            yield
            return
        if self.draining:
            raise self._refusal("SERVER_DRAINING", "the server is shutting down; try again, on another one if there is one")
        call = current_call()
        bypass = call is not None and self._bypass(call)
        priority = Priority.HIGH if bypass or call is None else self._priority(call)
        owner = subject_of(call.principal, call.peer) if call is not None else ""
        level = self._pressure.level if self._pressure is not None else Level.NONE
        share = (SHARES if level is Level.NONE else PRESSED_SHARES)[priority]
        left = context.time_remaining()
        if not bypass:
            self._check(owner, level, share, left)
        self._recent.admitted()
        deadline = None if left is None else self._now() + left
        kept = method in self._uploads
        admitted = self._control.admit(owner, priority, deadline, share=share, bypass=bypass, kept=kept)
        if call is not None:
            call.admission = admitted
        try:
            yield
        finally:
            self._control.leave(admitted)

    def _check(self, owner: str, level: Level, share: float, left: float | None) -> None:
        if level is Level.CRITICAL:
            raise self._refusal("SERVER_OVERLOADED", "the server is short of memory; try again later")
        if not self._control.has_room(share):
            raise self._full()
        arrivals = self._control.arrivals
        if not arrivals.make_room(owner):
            if arrivals.of(owner) * arrivals.owners < arrivals.most:  # less than an equal share
                raise self._full()
            raise self._unfinished(owner)
        if left is not None:
            wait = self._expected()
            if left <= wait:
                message = f"the call has {max(0.0, left):.1f} s left and would wait for {wait:.1f} s before its turn"
                raise self._refusal("DEADLINE_UNREACHABLE", message)

    def _full(self) -> CallRefusedError:
        return self._refusal("SERVER_OVERLOADED", "the server has more to do than it can; try again later")

    def _evicted(self, arrival: Arrival) -> CallRefusedError:
        return self._unfinished(arrival.owner)

    def _unfinished(self, owner: str) -> CallRefusedError:
        """RESOURCE_EXHAUSTED, because other callers are served: it is this one that has too much open."""
        self.refused["REQUESTS_UNFINISHED"] += 1
        arrivals = self._control.arrivals
        if self._repeated.is_due(owner):
            detail = f"{arrivals.of(owner)} unfinished requests of {len(arrivals)} in all, which is as many as there may be"
            named = {"peer": owner.removeprefix(PEER)} if owner.startswith(PEER) else {"principal": owner}
            self._record(SecurityEvent(Event.REQUESTS_UNFINISHED, "requests_unfinished", detail=detail, **named))
        message = (
            "this caller has the most unfinished requests, and the server takes no more: send them faster, or fewer at a time"
        )
        return CallRefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUESTS_UNFINISHED", message, retry_after=_RETRY_FIRST)

    def _refusal(self, reason: str, message: str) -> CallRefusedError:
        self.refused[reason] += 1
        if self._recent.refused() and not self.draining:
            counts = self.counts
            log.warning(
                "calls are being refused: limit %.1f, %d at work, %d waiting, %d on their way, %d long ones",
                self.limit,
                counts.at_work,
                counts.waiting,
                counts.on_the_way,
                counts.long,
            )
        return CallRefusedError(grpc.StatusCode.UNAVAILABLE, reason, message, retry_after=self._recent.retry_after())


class _RecentCalls:
    """How many calls were admitted and refused lately, weighted by exp(-age / _MEMORY)."""

    def __init__(self, now: Callable[[], float], jitter: Callable[[], float]) -> None:
        self._now = now
        self._jitter = jitter
        self._admitted = self._refused = 0.0
        self._at = now()

    def admitted(self) -> None:
        self._fade()
        self._admitted += 1

    def refused(self) -> bool:
        """Count a refusal; True if it is the first for a while."""
        self._fade()
        first = self._refused < 0.1
        self._refused += 1
        return first

    def retry_after(self) -> float:
        """Seconds until a retry makes sense.

        With nine calls refused for each one admitted it takes ten times as long to serve them all, so the time grows with
        that ratio; and it is jittered, or all of them would come back at once.
        """
        seconds = _RETRY_FIRST * (1 + self._refused / max(1.0, self._admitted))
        return min(_RETRY_LAST, seconds) * (0.5 + self._jitter())

    def _fade(self) -> None:
        now = self._now()
        faded = math.exp(-(now - self._at) / _MEMORY)
        self._admitted, self._refused, self._at = self._admitted * faded, self._refused * faded, now
