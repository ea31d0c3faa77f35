"""Refuses calls that the policy does not allow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import grpc

from interceptors.auth.policy import Decision, Policy
from interceptors.calls.call import Context, current_call
from interceptors.calls.refusal import CallRefusedError
from interceptors.calls.security_event import Event, Record, SecurityEvent, of_call
from interceptors.handlers.base import CallInterceptor

_DENIED = grpc.StatusCode.PERMISSION_DENIED


class Authorise(CallInterceptor):
    """Applies the policy in force at the time of each call. Placed after authentication; without it every call is refused."""

    def __init__(
        self, policy: Callable[[], Policy], *, served: Collection[str], exempt: Collection[str], dry_run: bool, record: Record
    ) -> None:
        """`exempt`: methods, or "/package.Service/*", that need no principal. `dry_run`: only record what would be denied."""
        self._policy = policy
        self._served = frozenset(served)
        self._exempt = frozenset(exempt)
        self._dry_run = dry_run
        self._record = record

    @contextmanager
    def around(self, method: str, context: Context) -> Iterator[None]:
        if method not in self._exempt and f"{method.rpartition('/')[0]}/*" not in self._exempt:
            self._check(method)
        yield

    def _check(self, method: str) -> None:
        call = current_call()
        if call is None or call.principal is None:
            # Authentication refuses such a call; if it did not, because the chain is wrong, this does.
            message = "authentication required: the call has no principal"
            raise CallRefusedError(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_MISSING", message, check="principal_missing")
        if method not in self._served:
            # Refused as unknown by the server; only authenticated clients learn which methods exist.
            return
        decision = self._policy().allows(method, call.principal)
        if decision.allowed:
            return
        needed = _needed(decision)
        if not self._dry_run:
            message, name = f"the caller may not call this method: {needed}", call.principal.name
            raise CallRefusedError(_DENIED, "PERMISSION_DENIED", message, check=decision.check, principal=name)
        self._record(of_call(SecurityEvent(Event.AUTHORISATION_WOULD_DENY, decision.check, detail=needed), call))


def _needed(decision: Decision) -> str:
    """May be sent: the principal is known."""
    match sorted(decision.needed):
        case []:
            return "no scope grants access to it"
        case [scope]:
            return f"it needs the scope {scope}"
        case scopes:
            return f"it needs one of the scopes {', '.join(scopes)}"
