"""The OAuth token of a client: used until shortly before it expires, and renewed well before that.

The first call after the renewal time starts a request and goes on with the token there is; only a call without a usable
token waits. At most one request runs at a time, and none in an idle client.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress

import grpc

from aligner_client.auth.oauth import Grant, NoGrant
from aligner_client.errors import DeadlineExceededError, cancelled, raise_unless_task_cancelled

_LOG = logging.getLogger(__name__)

Clock = Callable[[], float]

RENEW_AT = 0.8
"""Share of its lifetime after which a token is renewed, less up to JITTER so that many clients do not renew at once."""
JITTER = 0.1
MARGIN_SECONDS = 30.0
"""A token is not sent in its last seconds, or in the last tenth of a short life: it must still be valid on arrival."""
AFTER_FAILURE_SECONDS = 5.0
"""Between attempts to renew a token that is still valid."""
AFTER_REFUSAL_SECONDS = 10.0
"""Between tokens discarded because the server refused them: a server that refuses all must not flood the token endpoint."""


class TokenState:
    """The token and when to renew it, without I/O or locks. `clock`: monotonic seconds; `jitter`: a random number in 0..1."""

    def __init__(self, clock: Clock, jitter: Callable[[], float]) -> None:
        self._clock = clock
        self._jitter = jitter
        self._token: str | None = None
        self._renew_at = 0.0
        self._ends_at = 0.0
        self._refused_at: float | None = None

    def usable(self) -> str | None:
        """The token, if it may be sent now."""
        return self._token if self._clock() < self._ends_at else None

    def due(self) -> bool:
        """Whether to fetch another now."""
        return self.usable() is None or self._clock() >= self._renew_at

    def granted(self, grant: Grant, requested_at: float) -> None:
        """Store a token that was requested at `requested_at`."""
        self._token = grant.token
        self._renew_at = requested_at + grant.lifetime * (RENEW_AT - JITTER * self._jitter())
        self._ends_at = requested_at + grant.lifetime - min(MARGIN_SECONDS, grant.lifetime / 10)

    def failed(self) -> None:
        """Postpone the next request, as long as there is a token."""
        self._renew_at = self._clock() + AFTER_FAILURE_SECONDS * (1 + self._jitter())

    def refuse(self, token: str) -> bool:
        """Discard `token`, which the server refused. Returns whether another attempt with the next token makes sense."""
        if token != self._token:
            return True  # another call has had it renewed meanwhile
        now = self._clock()
        if self._refused_at is not None and now - self._refused_at < AFTER_REFUSAL_SECONDS:
            return False
        self._refused_at = now
        self._token, self._ends_at = None, 0.0
        return True


class TokenCache:
    """Gives the current token to any number of threads and tasks. `fetch` runs on a thread of its own."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Grant | NoGrant]],
        *,
        clock: Clock = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._state = TokenState(clock, jitter)
        self._lock = threading.Lock()
        self._pending: Future[Grant | NoGrant] | None = None

    def get(self, timeout: float | None) -> str | NoGrant:
        """The current token. Raises DeadlineExceededError, and CallCancelledError after `close`."""
        current = self._current()
        if isinstance(current, str):
            return current
        try:
            return _token(current.result(timeout))
        except CancelledError:
            raise cancelled() from None
        except FutureTimeoutError:  # before Python 3.11 another class than TimeoutError
            raise _too_late() from None

    async def async_get(self, timeout: float | None) -> str | NoGrant:
        """`get` for a task."""
        current = self._current()
        if isinstance(current, str):
            return current
        try:
            # Shielded: a task that is cancelled must not cancel the request that others wait for.
            return _token(await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(current)), timeout))
        except asyncio.CancelledError:
            raise_unless_task_cancelled(ended=current.cancelled())
            raise
        except asyncio.TimeoutError:
            raise _too_late() from None

    def refuse(self, token: str) -> bool:
        """As `TokenState.refuse`."""
        with self._lock:
            return self._state.refuse(token)

    def close(self) -> None:
        """End the calls that wait for a token. Idempotent."""
        with self._lock:
            pending = self._pending
        if pending is not None:
            pending.cancel()

    def _current(self) -> str | Future[Grant | NoGrant]:
        """The token, or the request to wait for; starts one that is due."""
        with self._lock:
            token = self._state.usable()
            if self._pending is None and self._state.due():
                pending = Future[Grant | NoGrant]()
                # Not on the thread of a call that waits: the request must not end with that call's deadline.
                threading.Thread(target=lambda: asyncio.run(self._run(pending)), name="aligner-token", daemon=True).start()
                self._pending = pending  # only now: starting a thread fails while the interpreter shuts down
            if token is not None:
                return token
            assert self._pending is not None
            return self._pending

    async def _run(self, pending: Future[Grant | NoGrant]) -> None:
        requested_at = self._clock()
        try:
            outcome = await self._fetch()
        except Exception as error:
            # A bug. The calls that wait raise it; its text is not logged, as it may hold a secret.
            _LOG.error("fetching a token failed: %s", type(error).__name__)
            with self._lock:
                self._state.failed()
                self._pending = None
            with suppress(InvalidStateError):  # closed meanwhile
                pending.set_exception(error)
            return
        with self._lock:
            if isinstance(outcome, Grant):
                self._state.granted(outcome, requested_at)
            else:
                if self._state.usable() is not None:
                    # No call waits for it, so no call would raise it.
                    _LOG.warning("the token could not be renewed yet: %s", outcome.message)
                self._state.failed()
            self._pending = None
        with suppress(InvalidStateError):
            pending.set_result(outcome)


def _token(outcome: Grant | NoGrant) -> str | NoGrant:
    return outcome.token if isinstance(outcome, Grant) else outcome


def _too_late() -> DeadlineExceededError:
    return DeadlineExceededError(grpc.StatusCode.DEADLINE_EXCEEDED, "no token within the call's timeout")
