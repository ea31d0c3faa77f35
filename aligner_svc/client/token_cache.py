"""The token a client holds: when it is used, renewed, waited for and thrown away. One request at a time.

A token is used up to a little before its end and renewed well before, by whichever call comes first after
that moment: the renewal runs beside the call, which goes with the token there is. Only a call that finds no
token waits. Nothing runs in an idle client.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress

import grpc

from aligner_svc.client.errors import DeadlineExceededError, cancelled, raise_if_not_this_task
from aligner_svc.client.oauth import Grant, NoGrant

_LOG = logging.getLogger(__name__)

Fetch = Callable[[], Awaitable[Grant | NoGrant]]
Clock = Callable[[], float]

RENEW_AT = 0.8
"""Part of its lifetime after which a token is renewed, less JITTER of it at most: many clients do not come at once."""
JITTER = 0.1
MARGIN_SECONDS = 30.0
"""A token is not used in its last seconds, nor in the last tenth of a short life: it has to arrive in time."""
AFTER_FAILURE_SECONDS = 5.0
"""Between tries to renew a token that still lasts."""
AFTER_REFUSAL_SECONDS = 10.0
"""Between tokens thrown away because the server refused them: one that refuses all must not flood the token endpoint."""


class TokenState:
    """What is known of the token. No I/O, no locks. `clock` in seconds from anywhere."""

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
        """Whether another should be fetched now."""
        return self.usable() is None or self._clock() >= self._renew_at

    def granted(self, grant: Grant, asked_at: float) -> None:
        """Keep a token that was asked for at `asked_at`."""
        self._token = grant.token
        self._renew_at = asked_at + grant.lifetime * (RENEW_AT - JITTER * self._jitter())
        self._ends_at = asked_at + grant.lifetime - min(MARGIN_SECONDS, grant.lifetime / 10)

    def failed(self) -> None:
        """Leave the token endpoint alone for a while, as long as there is a token."""
        self._renew_at = self._clock() + AFTER_FAILURE_SECONDS * (1 + self._jitter())

    def refuse(self, token: str) -> bool:
        """The server refused `token`: forget it. Whether another try, with the token got then, makes sense."""
        if token != self._token:
            return True  # another call has had it renewed meanwhile
        now = self._clock()
        if self._refused_at is not None and now - self._refused_at < AFTER_REFUSAL_SECONDS:
            return False
        self._refused_at = now
        self._token, self._ends_at = None, 0.0
        return True


class TokenCache:
    """For threads. `get` may be called from any of them."""

    def __init__(self, fetch: Fetch, *, clock: Clock = time.monotonic, jitter: Callable[[], float] = random.random) -> None:
        self._fetch = fetch
        self._clock = clock
        self._state = TokenState(clock, jitter)
        self._lock = threading.Lock()
        self._flight: Future[Grant | NoGrant] | None = None

    def get(self, timeout: float | None) -> str | NoGrant:
        """The current token. Raises DeadlineExceededError, CallCancelledError after `close`."""
        with self._lock:
            token = self._state.usable()
            if self._flight is None and self._state.due():
                self._start()
            flight = self._flight
        if token is not None:
            return token
        assert flight is not None
        try:
            outcome = flight.result(timeout)
        except CancelledError:
            raise cancelled() from None
        except TimeoutError:
            raise _no_time() from None
        return outcome.token if isinstance(outcome, Grant) else outcome

    def refuse(self, token: str) -> bool:
        """As `TokenState.refuse`."""
        with self._lock:
            return self._state.refuse(token)

    def close(self) -> None:
        """Whoever waits for a token waits no longer."""
        with self._lock:
            flight = self._flight
        if flight is not None:
            flight.cancel()

    def _start(self) -> None:
        flight = Future[Grant | NoGrant]()
        # A thread of its own, and not one of those that wait: none of their deadlines is the request's.
        threading.Thread(target=lambda: asyncio.run(self._fly(flight)), name="aligner-token", daemon=True).start()
        self._flight = flight  # only now, as no thread can be started while the interpreter ends

    async def _fly(self, flight: Future[Grant | NoGrant]) -> None:
        asked_at = self._clock()
        try:
            outcome = await self._fetch()
        except Exception as error:
            # A bug. Whoever waits for the token meets it; of the text, nobody knows what is in it.
            _LOG.error("fetching a token failed: %s", type(error).__name__)
            with self._lock:
                self._state.failed()
                self._flight = None
            with suppress(InvalidStateError):
                flight.set_exception(error)
            return
        with self._lock:
            _note(self._state, outcome, asked_at)
            self._flight = None
        with suppress(InvalidStateError):
            flight.set_result(outcome)


class AsyncTokenCache:
    """For the tasks of one event loop."""

    def __init__(self, fetch: Fetch, *, clock: Clock = time.monotonic, jitter: Callable[[], float] = random.random) -> None:
        self._fetch = fetch
        self._clock = clock
        self._state = TokenState(clock, jitter)
        self._flight: asyncio.Task[Grant | NoGrant] | None = None

    async def get(self, timeout: float | None) -> str | NoGrant:  # noqa: ASYNC109 - the call's own, as in the client
        """As `TokenCache.get`."""
        token = self._state.usable()
        if self._flight is None and self._state.due():
            self._flight = asyncio.create_task(self._fly())
        if token is not None:
            return token
        assert self._flight is not None
        try:
            async with asyncio.timeout(timeout):
                # Shielded: a caller that is cancelled must not take the token from the others.
                outcome = await asyncio.shield(self._flight)
        except asyncio.CancelledError:
            raise_if_not_this_task()
            raise
        except TimeoutError:
            raise _no_time() from None
        return outcome.token if isinstance(outcome, Grant) else outcome

    def refuse(self, token: str) -> bool:
        """As `TokenState.refuse`."""
        return self._state.refuse(token)

    def close(self) -> None:
        """As `TokenCache.close`."""
        if self._flight is not None:
            self._flight.cancel()

    async def _fly(self) -> Grant | NoGrant:
        asked_at = self._clock()
        try:
            outcome = await self._fetch()
            _note(self._state, outcome, asked_at)
            return outcome
        finally:
            self._flight = None


def _note(state: TokenState, outcome: Grant | NoGrant, asked_at: float) -> None:
    if isinstance(outcome, Grant):
        state.granted(outcome, asked_at)
        return
    if state.usable() is not None:
        # Nobody waits for it, so nobody would hear of it.
        _LOG.warning("the token could not be renewed yet: %s", outcome.message)
    state.failed()


def _no_time() -> DeadlineExceededError:
    return DeadlineExceededError(grpc.StatusCode.DEADLINE_EXCEEDED, "no token came within the call's timeout")
