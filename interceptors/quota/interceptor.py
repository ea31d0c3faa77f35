"""Limits what each caller uses."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Final

import grpc

from interceptors.background import Tasks
from interceptors.calls.call import Call, Context, current_call
from interceptors.calls.refusal import CallRefusedError
from interceptors.calls.stages import stage
from interceptors.calls.subject import subject_of
from interceptors.handlers.base import CallInterceptor
from interceptors.quota.classes import QuotaClass, QuotaClasses
from interceptors.quota.meter import CallMeter, Estimate
from interceptors.quota.refusal import RATELIMIT, ratelimit, refusal
from interceptors.quota.stores.base import Left, QuotaStore

_DEADLINE: Final = frozenset({"DEADLINE_UNREACHABLE", "DEADLINE_EXPIRED"})
"""Reasons of calls whose deadline was too short. With their requests given back a caller could make any number of them."""


class Quota(CallInterceptor):
    """Takes a request and its slots when a call starts; the call's meter charges the rest.

    `classes`: those in force. `streams`: methods that hold a stream's slot. `estimate` makes the Estimate of one call.
    `exempt`: methods that cost nothing.
    """

    def __init__(
        self,
        store: QuotaStore,
        classes: Callable[[], QuotaClasses],
        *,
        estimate: Callable[[], Estimate],
        streams: Collection[str],
        exempt: Collection[str],
    ) -> None:
        self._store = store
        self._classes = classes
        self._estimate = estimate
        self._streams = frozenset(streams)
        self._exempt = frozenset(exempt)
        self._leases = map(f"{uuid.uuid4().hex}-{{:x}}".format, itertools.count())
        self._ending = Tasks()
        """Settle the accounts of calls that are over."""

    async def start(self) -> None:
        """Start the store."""
        await self._store.start()

    async def close(self) -> None:
        """Settle the accounts of all calls, and close the store. Idempotent."""
        await self._ending.wait()
        await self._store.close()

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        call = current_call()
        if method in self._exempt or call is None:
            yield
            return
        with stage("quota"):
            meter = await self._begin(method, call)
        call.meter = meter
        stated = refund = False
        try:
            yield
        except CallRefusedError as refused:
            stated = any(name == RATELIMIT for name, _ in refused.metadata)
            # The server's fault, not the client's, unless the client gave the call less time than it takes.
            refund = refused.code is grpc.StatusCode.UNAVAILABLE and refused.reason not in _DEADLINE
            raise
        finally:
            if not stated and meter.left:
                context.set_trailing_metadata((*(context.trailing_metadata() or ()), (RATELIMIT, ratelimit(meter.left))))
            # A client that cancels, cancels this task, perhaps while Redis is asked.
            closing = meter.close(refund=refund)
            await (self._ending.finish(closing) if self._store.waits else closing)

    async def _begin(self, method: str, call: Call) -> CallMeter:
        quota = self.class_of(call)
        subject = subject_of(call.principal, call.peer)
        lease = next(self._leases)
        # A zero cost checks for debt before the upload: audio and bytes are charged later.
        charges = quota.charges(requests=1.0, audio_seconds=0.0, size=0.0)
        stream = method in self._streams
        taken = await self._store.take(subject, charges, quota.slots(stream=stream), lease)
        if not isinstance(taken, Left):
            raise refusal(taken, subject)
        return CallMeter(self._store, subject, quota, lease, dict(taken.remaining), self._estimate(), stream)

    def class_of(self, call: Call) -> QuotaClass:
        """The class whose limits and priority apply to a call."""
        return self._classes().of(call.principal)
