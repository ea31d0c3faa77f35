"""An address whose calls keep failing is kept out for a while, and longer each time.

The rules, which docs/abuse.md has for operators:

- Calls, failed authentications and invalid payloads are counted apart, per IPv4 address and per IPv6 /64: whoever has
  one IPv6 address has 2^64 of them.
- Past a threshold the address is blocked: its calls end before anything of them is looked at. They are not counted, so a
  client that retries does not keep itself out; calls already running go on. After it the address begins anew.
- What goes well makes up for nothing: a stolen key must not buy guesses at others.
- An expired credential is no failed authentication. It is sound in every other way, so nobody guessed it, and a client
  with a hundred calls in flight sends it a hundred times before it has fetched another.
- A peer without an address (a unix socket) is never counted: all of them look the same.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType

import grpc
from grpc import aio

from interceptors.abuse.blocks import Block, Blocks
from interceptors.abuse.peers import Network, Networks
from interceptors.abuse.windows import CountWindow
from interceptors.audit import of_call
from interceptors.calls.call import Context, current_call
from interceptors.calls.outcome import outcome
from interceptors.calls.refusal import CallRefusedError
from interceptors.calls.security_event import Event, Record, SecurityEvent
from interceptors.handlers.base import CallInterceptor

REASON = "PEER_BLOCKED"
LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
"""Behind a sidecar every caller is this one."""
_MINUTE = 60.0
_SOUND = "TOKEN_EXPIRED"
_INVALID = grpc.StatusCode.INVALID_ARGUMENT


@dataclass(frozen=True, slots=True)
class AbuseRules:
    """What is borne from one address; one more, and it is blocked."""

    calls_per_minute: int | None = None
    """None: any number. Fair shares are a matter of quotas, which know callers and not only addresses."""
    failures_per_minute: int = 20
    """Credentials that were refused."""
    invalid_per_minute: int = 60
    """Requests that could not be served as they were."""
    weights: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({"MALWARE_FOUND": 10}))
    """Reasons (ErrorInfo) that count as so many invalid requests, whatever their status."""
    block_seconds: float = 30.0
    """The first block; each further one lasts twice as long as the one before."""
    longest_block_seconds: float = 3600.0
    memory_seconds: float = 3600.0
    """After so long without a block the next is a first one again."""
    ipv4_prefix: int = 32
    """Bits of an IPv4 address that are counted as one. Less than 32 puts neighbours together who do not know each other."""
    ipv6_prefix: int = 64
    """The same of an IPv6 address: 64 is what one subscriber gets at least."""

    def __post_init__(self) -> None:
        """Raises ValueError; Window, Blocks and Networks see to the rest."""
        counts = (self.failures_per_minute, self.invalid_per_minute, *self.weights.values())
        if any(count < 1 for count in (*counts, *(() if self.calls_per_minute is None else (self.calls_per_minute,)))):
            raise ValueError("at least 1 a minute has to be borne, and no reason counts as less than 1")


class _Counted:
    """One kind of event with what is borne of it."""

    def __init__(self, check: str, limit: int, entries: int) -> None:
        self.check = check
        self.limit = limit
        self.window = CountWindow(_MINUTE, entries)

    def over(self, peer: bytes, now: float, weight: int = 1) -> bool:
        return self.window.add(peer, now, weight) > self.limit


class Abuse(CallInterceptor):
    """Refuses calls of blocked addresses with UNAVAILABLE, and counts how all others end.

    `exempt`: methods that are neither refused nor counted ("/package.Service/Method"), the health service's. `trusted`:
    networks that are never counted. `shadow`: record what would be blocked, and block nothing. `entries`: peers that each
    window and the blocks hold at most. `clock`: seconds that only go up.
    """

    def __init__(
        self,
        rules: AbuseRules,
        *,
        exempt: Collection[str],
        record: Record,
        trusted: Iterable[Network] = LOOPBACK,
        shadow: bool = False,
        entries: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._exempt = frozenset(exempt)
        self._record = record
        self._networks = Networks(trusted, rules.ipv4_prefix, rules.ipv6_prefix)
        self._shadow = shadow
        self._clock = clock
        calls = rules.calls_per_minute
        self._calls = None if calls is None else _Counted("too_many_calls", calls, entries)
        self._failures = _Counted("too_many_failures", rules.failures_per_minute, entries)
        self._invalid = _Counted("too_many_invalid", rules.invalid_per_minute, entries)
        self._blocks = Blocks(rules.block_seconds, rules.longest_block_seconds, rules.memory_seconds, entries)

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        now = self._now()
        peer = None if method in self._exempt else self._networks.key(_name(context))
        if peer is None:
            yield
            return
        self._admit(peer, now, context)
        try:
            yield
        except (aio.AbortError, aio.BaseError) as error:  # by the servicer's own hand, without a reason
            self._judge(outcome(context, error), "", peer, context)
            raise
        except CallRefusedError as refused:
            if refused.code is grpc.StatusCode.UNAUTHENTICATED and refused.check and refused.reason != _SOUND:
                self._count(self._failures, peer, context)
            else:
                self._judge(refused.code, refused.reason, peer, context)
            raise
        self._judge(outcome(context, None), "", peer, context)

    def _now(self) -> float:
        """The time. What has ended by then is recorded first: with the next call of anybody, a health check too."""
        now = self._clock()
        for block in self._blocks.ended(now):
            if not self._shadow:
                detail = f"after {block.seconds:g} s and {block.refused} refused calls"
                self._record(SecurityEvent(Event.PEER_UNBLOCKED, detail=detail, peer=block.label))
        return now

    def _admit(self, peer: bytes, now: float, context: Context) -> None:
        """Raises RefusedError."""
        block = self._blocks.find(peer, now)
        if block is None and self._calls is not None:
            block = self._count(self._calls, peer, context)
        if block is None:
            return
        block.refused += 1
        if not self._shadow:
            message = "too many calls from this address, or too many that failed: none is served for a while"
            raise CallRefusedError(grpc.StatusCode.UNAVAILABLE, REASON, message, retry_after=block.until - now)

    def _judge(self, code: grpc.StatusCode | None, reason: str, peer: bytes, context: Context) -> None:
        weight = self._rules.weights.get(reason, 1 if code is _INVALID else 0)
        if weight:
            self._count(self._invalid, peer, context, weight)

    def _count(self, counted: _Counted, peer: bytes, context: Context, weight: int = 1) -> Block | None:
        """One more; the block that begins with it. What ends while its peer is blocked began before that, and is not counted."""
        now = self._now()
        if self._blocks.find(peer, now) is not None:
            return None
        if not counted.over(peer, now, weight):
            return None
        for each in (self._calls, self._failures, self._invalid):
            if each is not None:
                each.window.forget(peer)
        block = self._blocks.begin(peer, _name(context), now)
        event = Event.PEER_WOULD_BLOCK if self._shadow else Event.PEER_BLOCKED
        detail = f"for {block.seconds:g} s, block {block.level + 1}: more than {counted.limit} a minute"
        self._record(of_call(SecurityEvent(event, counted.check, detail=detail, peer=block.label), current_call()))
        return block


def _name(context: Context) -> str:
    """The peer as gRPC writes it."""
    call = current_call()
    return call.peer if call is not None else context.peer()
