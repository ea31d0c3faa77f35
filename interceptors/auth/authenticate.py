"""Every call is somebody's.

The rules, which docs/security.md has for callers:

- One credential a call: a bearer token or an API key. Two of them, or one twice, are refused and not chosen between.
- A token or a key says who calls, whatever certificate the connection has; without one the certificate does, where that
  is a method. A certificate that is refused ends the call, token or not.
- What is refused is told alike, whether a key exists or not. Only an expired credential, sound in every other way, is
  told to be expired: its owner has to fetch another.
- A credential is judged when its call starts. A call may outlive it, by `overtime` seconds at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import grpc

from interceptors.audit import of_call
from interceptors.calls.abort import abort_from_outside
from interceptors.calls.call import Context, current_call
from interceptors.calls.principal import Principal, Rejected, Undecided, Verdict
from interceptors.calls.refusal import CallRefusedError
from interceptors.calls.security_event import Event, Record, SecurityEvent
from interceptors.calls.stages import stage
from interceptors.handlers.base import CallInterceptor

AUTHORIZATION = "authorization"
API_KEY = "x-api-key"
RETRY_SECONDS = 2.0
"""Advice to a caller whose credential cannot be judged now."""
_CODE = grpc.StatusCode.UNAUTHENTICATED
_MISSING = "credentials_missing"
_AMBIGUOUS = "credentials_ambiguous"

AuthContext = Mapping[str, Iterable[bytes]]


class Tokens(Protocol):
    """Bearer tokens; `thumbprint` as RFC 8705 has it, None where the connection has no client certificate."""

    async def authenticate(self, token: str, thumbprint: str | None) -> Verdict:
        """Who it is."""


class Keys(Protocol):
    """API keys."""

    async def authenticate(self, key: str) -> Verdict:
        """Who it is."""


class Certificates(Protocol):
    """Client certificates, verified by TLS already."""

    def authenticate(self, auth_context: AuthContext) -> Verdict | None:
        """Who it is; None: the connection has no client certificate."""


@dataclass(frozen=True, slots=True)
class Methods:
    """What proves who calls; None where it is not accepted."""

    tokens: Tokens | None = None
    keys: Keys | None = None
    certificates: Certificates | None = None

    def __str__(self) -> str:
        """What a caller without a credential is told to send."""
        names = {
            "a bearer token (authorization: Bearer ...)": self.tokens,
            "an API key (x-api-key: ...)": self.keys,
            "a client certificate": self.certificates,
        }
        return " or ".join(name for name, method in names.items() if method is not None)


class Authenticate(CallInterceptor):
    """Sets the call's principal or refuses it.

    `exempt`: methods that anybody may call ("/package.Service/Method"). `thumbprint`: of the peer's certificate.
    `overtime`: seconds a call may go on after its credential has expired. `domain`: of the ErrorInfo when it may not.
    """

    def __init__(
        self,
        methods: Methods,
        *,
        thumbprint: Callable[[AuthContext], str | None],
        exempt: Collection[str],
        overtime: float,
        record: Record,
        domain: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._methods = methods
        self._thumbprint = thumbprint
        self._exempt = frozenset(exempt)
        self._overtime = overtime
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
        left = verdict.expires + self._overtime - self._now()
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
        peer: AuthContext = context.auth_context()
        certificates = self._methods.certificates
        certified = certificates.authenticate(peer) if certificates is not None else None
        if certified is not None and not isinstance(certified, Principal):
            return certified
        metadata = context.invocation_metadata() or ()
        sent = [(name, _text(value)) for name, value in metadata if name in {AUTHORIZATION, API_KEY}]
        if not sent:
            return certified or Rejected(_MISSING)
        return await self._verify(*sent[0], peer) if len(sent) == 1 else Rejected(_AMBIGUOUS)

    async def _verify(self, header: str, value: str, peer: AuthContext) -> Verdict:
        tokens, keys = self._methods.tokens, self._methods.keys
        if header == API_KEY:
            return Rejected("method_not_accepted") if keys is None else await keys.authenticate(value)
        scheme, _, token = value.partition(" ")
        if scheme.lower() != "bearer":
            return Rejected("scheme_unknown")
        if tokens is None:
            return Rejected("method_not_accepted")
        return await tokens.authenticate(token.strip(" "), self._thumbprint(peer))

    def _refusal(self, verdict: Rejected | Undecided) -> CallRefusedError:
        check = verdict.check
        if isinstance(verdict, Undecided):
            message = "whether the credential is good cannot be told at the moment"
            return CallRefusedError(
                grpc.StatusCode.UNAVAILABLE, "AUTHENTICATION_UNAVAILABLE", message, retry_after=RETRY_SECONDS, check=check
            )
        if check == _MISSING:
            message = f"this server wants to know who calls: send {self._methods}"
            return CallRefusedError(_CODE, "CREDENTIALS_MISSING", message, check=check)
        if check == _AMBIGUOUS:
            message = "more than one credential was sent: send one, once"
            return CallRefusedError(_CODE, "CREDENTIALS_AMBIGUOUS", message, check=check)
        if verdict.expired:
            return CallRefusedError(
                _CODE, "TOKEN_EXPIRED", "the credential has expired", check=check, principal=verdict.principal
            )
        message = "the credential is not accepted"
        return CallRefusedError(_CODE, "CREDENTIALS_INVALID", message, check=check, principal=verdict.principal)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
