"""Records a security event for each refusal that concerns the principal, and for each error of the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from grpc import aio

from interceptors.calls.call import Context, current_call
from interceptors.calls.refusal import CallRefusedError
from interceptors.calls.security_event import Event, Record, SecurityEvent, of_call
from interceptors.handlers.base import CallInterceptor

_EVENTS = {
    grpc.StatusCode.UNAUTHENTICATED: Event.AUTHENTICATION_FAILED,
    grpc.StatusCode.UNAVAILABLE: Event.AUTHENTICATION_FAILED,  # the credential could not be verified
    grpc.StatusCode.PERMISSION_DENIED: Event.AUTHORISATION_DENIED,
}
_CHECKS = {"key_revoked": Event.KEY_USED_AFTER_REVOCATION}


class Audit(CallInterceptor):
    """Records refused credentials, denied calls and errors of the server."""

    def __init__(self, record: Record) -> None:
        self._record = record

    @contextmanager
    def around(self, method: str, context: Context) -> Iterator[None]:
        try:
            yield
        except (aio.AbortError, aio.BaseError):
            raise
        except CallRefusedError as refused:
            event = _CHECKS.get(refused.check) or _EVENTS.get(refused.code)
            if refused.check and event is not None:
                self._record(of_call(SecurityEvent(event, refused.check, refused.principal), current_call()))
            raise
        except Exception as error:
            self._record(of_call(SecurityEvent(Event.SERVER_ERROR, type(error).__name__), current_call()))
            raise
