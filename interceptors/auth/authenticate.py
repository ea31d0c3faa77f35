"""Authenticates each call and sets `call.principal`.

The rules, which docs/security.md explains to clients:

- One credential a call: a bearer token or an API key. Two of them, or the same one twice, are refused.
- A token or a key decides the principal, whatever certificate the connection has; without one the certificate does, where
  mTLS is a method. A rejected certificate ends the call even with a good token.
- All rejections look alike to the client, whether a key exists or not. Only a credential that has expired and is sound in
  every other way is reported as expired, so that its owner fetches another.
- A credential is judged when its call starts. A call may outlive it by `expiry_grace` seconds at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager

import grpc

from interceptors.auth.method import AuthMethod
from interceptors.calls.abort import abort_from_outside
from interceptors.calls.call import Context, current_call
from interceptors.calls.principal import Principal, Rejected, Undecided, Verdict
from interceptors.calls.refusal import CallRefusedError
from interceptors.calls.security_event import Event, Record, SecurityEvent, of_call
from interceptors.calls.stages import stage
from interceptors.handlers.base import CallInterceptor

CREDENTIAL_HEADERS = frozenset({"authorization", "x-api-key"})
"""Metadata that is a credential even where no method accepts it."""
RETRY_SECONDS = 2.0
"""retry-after for a credential that cannot be verified now."""
_CODE = grpc.StatusCode.UNAUTHENTICATED
_MISSING = "credentials_missing"
_AMBIGUOUS = "credentials_ambiguous"


class Authenticate(CallInterceptor):
    """Sets the call's principal or refuses the call.

    `methods`: those accepted. `exempt`: RPC methods that need no credential ("/package.Service/Method"). `expiry_grace`: seconds
    a call may go on after its credential has expired. `domain`: of the ErrorInfo when it may not. Raises ValueError for two
    methods with one header.
    """

    def __init__(
        self,
        methods: Sequence[AuthMethod],
        *,
        exempt: Collection[str],
        expiry_grace: float,
        record: Record,
        domain: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._by_header = {method.header: method for method in methods}
        if len(self._by_header) != len(methods):
            raise ValueError("two authentication methods read the same header")
        self._by_connection = self._by_header.pop("", None)
        self._headers = CREDENTIAL_HEADERS | self._by_header.keys()
        self._hint = " or ".join(method.hint for method in methods)
        self._exempt = frozenset(exempt)
        self._expiry_grace = expiry_grace
        self._record = record
        self._domain = domain
        self._now = now

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        if method in self._exempt:
            yield
            return
        with stage("authenticate"):
            verdict = await self._judge(context)
        if not isinstance(verdict, Principal):
            raise self._refusal(verdict)
        call = current_call()
        if call is not None:
            call.principal = verdict
        if verdict.expires is None:
            yield
            return
        left = verdict.expires + self._expiry_grace - self._now()
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        ending: list[asyncio.Task[None]] = []  # the loop itself holds tasks weakly

        def end() -> None:
            message = "the credential expired while the call was running"
            refused = CallRefusedError(_CODE, "TOKEN_EXPIRED", message)
            ending.append(loop.create_task(abort_from_outside(context, refused.status(self._domain), task)))
            self._record(of_call(SecurityEvent(Event.AUTHENTICATION_FAILED, "expired_during_call", verdict.name), call))

        timer = loop.call_later(max(0.0, left), end)
        try:
            yield
        finally:
            timer.cancel()

    async def _judge(self, context: Context) -> Verdict:
        connection = context.auth_context()
        certified = await self._by_connection.authenticate("", connection) if self._by_connection is not None else None
        if certified is not None and not isinstance(certified, Principal):
            return certified
        metadata = context.invocation_metadata() or ()
        sent = [(name, _text(value)) for name, value in metadata if name in self._headers]
        if not sent:
            return certified or Rejected(_MISSING)
        if len(sent) > 1:
            return Rejected(_AMBIGUOUS)
        [(header, value)] = sent
        method = self._by_header.get(header)
        verdict = await method.authenticate(value, connection) if method is not None else None
        return verdict or Rejected("method_not_accepted")

    def _refusal(self, verdict: Rejected | Undecided) -> CallRefusedError:
        check = verdict.check
        if isinstance(verdict, Undecided):
            message = "the credential cannot be verified right now; retry"
            return CallRefusedError(
                grpc.StatusCode.UNAVAILABLE, "AUTHENTICATION_UNAVAILABLE", message, retry_after=RETRY_SECONDS, check=check
            )
        if check == _MISSING:
            return CallRefusedError(_CODE, "CREDENTIALS_MISSING", f"authentication required: send {self._hint}", check=check)
        if check == _AMBIGUOUS:
            message = "more than one credential was sent: send one, once"
            return CallRefusedError(_CODE, "CREDENTIALS_AMBIGUOUS", message, check=check)
        if verdict.expired:
            message = "the credential has expired"
            return CallRefusedError(_CODE, "TOKEN_EXPIRED", message, check=check, principal=verdict.principal)
        message = "the credential is not accepted"
        return CallRefusedError(_CODE, "CREDENTIALS_INVALID", message, check=check, principal=verdict.principal)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
