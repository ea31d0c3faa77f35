"""An authenticated caller does what the policy grants it, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

import grpc

from interceptors.auth.policy import Decision, Policy
from interceptors.calls.call import Call, Context, current_call
from interceptors.calls.principal import Principal
from interceptors.calls.refusal import CallRefusedError
from interceptors.calls.security_event import Event, Record, SecurityEvent
from interceptors.handlers.base import CallInterceptor


class Authorise(CallInterceptor):
    """Asks the policy in force at the time of each call. Stands behind authentication, and closes where that is missing."""

    def __init__(
        self, policy: Callable[[], Policy], *, served: Collection[str], exempt: Collection[str], dry_run: bool, record: Record
    ) -> None:
        """`exempt`: methods, or "/package.Service/*", that need nobody. `dry_run`: record what would be denied, deny nothing."""
        self._policy = policy
        self._served = frozenset(served)
        self._exempt = frozenset(exempt)
        self._dry_run = dry_run
        self._record = record

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        if method not in self._exempt and f"{method.rpartition('/')[0]}/*" not in self._exempt:
            self._check(method)
        yield

    def _check(self, method: str) -> None:
        call = current_call()
        if call is None or call.principal is None:
            # Authentication has refused such a call already; if it did not, a mistake in the chain must not open the door.
            message = "this server wants to know who calls"
            raise CallRefusedError(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_MISSING", message, check="principal_missing")
        if method not in self._served:
            # Answered as unknown further in. Only who has proven who they are gets to hear which methods there are.
            return
        decision = self._policy().allows(method, call.principal)
        if decision.allowed:
            return
        if not self._dry_run:
            raise _denied(decision, call.principal)
        self._record(_would_deny(method, decision, call, call.principal))


def _denied(decision: Decision, principal: Principal) -> CallRefusedError:
    return CallRefusedError(
        grpc.StatusCode.PERMISSION_DENIED,
        "PERMISSION_DENIED",
        f"the caller may not call this method: {_needs(decision)}",
        check=decision.check,
        principal=principal.name,
    )


def _would_deny(method: str, decision: Decision, call: Call, principal: Principal) -> SecurityEvent:
    return SecurityEvent(
        Event.AUTHORISATION_WOULD_DENY,
        check=decision.check,
        principal=principal.name,
        detail=_needs(decision),
        request_id=call.request_id,
        peer=call.peer,
        method=method,
        user_agent=call.user_agent,
    )


def _needs(decision: Decision) -> str:
    """Whom it would take. A caller that is known may know."""
    match sorted(decision.needed):
        case []:
            return "it is open to nobody"
        case [scope]:
            return f"it needs the scope {scope}"
        case scopes:
            return f"it needs one of the scopes {', '.join(scopes)}"
