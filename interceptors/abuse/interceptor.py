"""Blocks addresses whose calls keep failing, for longer each time.

The rules (docs/abuse.md has them for operators):

- Calls, failed authentications and invalid payloads are counted separately, per IPv4 address and per IPv6 /64, which a single
  subscriber has.
- Above a threshold the address is blocked: its calls are refused before anything of them is read. These are not counted, so a
  client that retries does not prolong its block; running calls go on. After the block all counts start at 0.
- Successful calls do not lower a count: a stolen key must not buy guesses at others.
- An expired credential is not a failed authentication. It is valid otherwise, so it was not guessed, and a client with a
  hundred calls in flight sends it a hundred times before it has a new one.
- A peer without an address (a unix socket) is never counted: all of them look the same.
- Exempt methods, such as health checks, are never refused: a probe must learn the truth. Requests that they refuse count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType
from typing import NamedTuple

import grpc
from grpc import aio

from interceptors.abuse.blocks import Block, Blocks, SharedBlock
from interceptors.abuse.peers import Network, Networks
from interceptors.abuse.windows import CountWindow
from interceptors.calls.call import Context, current_call
from interceptors.calls.outcome import outcome
from interceptors.calls.refusal import CallRefusedError
from interceptors.calls.security_event import Event, Record, SecurityEvent, of_call
from interceptors.handlers.base import CallInterceptor

REASON = "PEER_BLOCKED"
LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
"""The address of every client behind a sidecar."""
_MINUTE = 60.0
_EXPIRED = "TOKEN_EXPIRED"
_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_WEIGHTS = {"MALWARE_FOUND": 10, "REQUEST_TOO_LARGE": 1, "COMPRESSION_REFUSED": 1}


@dataclass(frozen=True, slots=True)
class AbuseRules:
    """How much is allowed from one address a minute before it is blocked."""

    calls_per_minute: int | None = None
    """None: any number. Fair shares are up to quotas, which know principals and not only addresses."""
    failures_per_minute: int = 20
    """Credentials that were refused."""
    invalid_per_minute: int = 60
    """Requests with an invalid payload."""
    weights: Mapping[str, int] = field(default_factory=lambda: MappingProxyType(_WEIGHTS))
    """Reasons (ErrorInfo) that count as so many invalid requests, whatever the status code."""
    block_seconds: float = 30.0
    """Of the first block; each further one is twice as long as the one before, up to the maximum."""
    max_block_seconds: float = 3600.0
    memory_seconds: float = 3600.0
    """After that long without a block the next is a first one again."""
    ipv4_prefix: int = 32
    """Leading bits that count as one address. Below 32, unrelated neighbours share their counts."""
    ipv6_prefix: int = 64
    """The same of IPv6: a subscriber has a /64 at least."""

    def __post_init__(self) -> None:
        """Raises ValueError. CountWindow, Blocks and Networks check the other fields."""
        counts = (self.failures_per_minute, self.invalid_per_minute, *self.weights.values())
        if any(count < 1 for count in (*counts, *(() if self.calls_per_minute is None else (self.calls_per_minute,)))):
            raise ValueError("limits and weights have to be at least 1")


class _Counter(NamedTuple):
    """Counts one kind of event."""

    check: str
    limit: int
    window: CountWindow


class Abuse(CallInterceptor):
    """Refuses calls of blocked addresses with UNAVAILABLE, and counts the outcomes of all others.

    `exempt`: methods ("/package.Service/Method"), such as health checks, that are not refused and whose calls do not count unless
    they fail. An error of the server counts if it was caused without a credential, in such a method or in a guard: clients do
    not do so repeatedly by accident. `trusted`: networks that are never counted. `shadow`: record what would be blocked, and
    block nothing. `entries`: peers that each window and the blocks hold at most. `share`: called with each block that begins, to
    tell other servers, which `adopt` it. `clock`: monotonic, in seconds.
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
        share: Callable[[SharedBlock], object] = lambda block: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._exempt = frozenset(exempt)
        self._record = record
        self._networks = Networks(trusted, rules.ipv4_prefix, rules.ipv6_prefix)
        self._shadow = shadow
        self._share = share
        self._clock = clock
        calls = rules.calls_per_minute
        self._calls = None if calls is None else _Counter("too_many_calls", calls, CountWindow(_MINUTE, entries))
        self._failures = _Counter("too_many_failures", rules.failures_per_minute, CountWindow(_MINUTE, entries))
        self._invalid = _Counter("too_many_invalid", rules.invalid_per_minute, CountWindow(_MINUTE, entries))
        self._blocks = Blocks(rules.block_seconds, rules.max_block_seconds, rules.memory_seconds, entries)

    def adopt(self, block: SharedBlock) -> None:
        """Block what another server has blocked. That one has recorded it; this one records how many calls it has refused."""
        if not self._shadow:
            self._blocks.adopt(block, self._now())

    @contextmanager
    def around(self, method: str, context: Context) -> Iterator[None]:
        now = self._now()
        peer = self._networks.key(_name(context))
        if peer is None:
            yield
            return
        if method not in self._exempt:
            self._admit(peer, now, context)
        try:
            yield
        except (aio.AbortError, aio.BaseError) as error:  # the servicer aborted the call, without a reason
            self._count_invalid(outcome(context, error), "", peer, context)
            raise
        except CallRefusedError as refused:
            if refused.code is grpc.StatusCode.UNAUTHENTICATED and refused.check and refused.reason != _EXPIRED:
                self._count(self._failures, peer, context)
            else:
                self._count_invalid(refused.code, refused.reason, peer, context)
            raise
        except Exception:
            if method in self._exempt or _before_authentication():
                self._count(self._invalid, peer, context)
            raise
        self._count_invalid(outcome(context, None), "", peer, context)

    def _now(self) -> float:
        """The time. Records the blocks that have ended by then, with the next call of any peer."""
        now = self._clock()
        for block in self._blocks.pop_ended(now):
            if not self._shadow and (block.refused or not block.adopted):
                detail = f"after {block.seconds:g} s and {block.refused} refused calls"
                self._record(SecurityEvent(Event.PEER_UNBLOCKED, detail=detail, peer=block.label))
        return now

    def _admit(self, peer: bytes, now: float, context: Context) -> None:
        """Raises CallRefusedError."""
        block = self._blocks.find(peer, now)
        if block is None and self._calls is not None:
            block = self._count(self._calls, peer, context)
        if block is None:
            return
        block.refused += 1
        if not self._shadow:
            message = "this address is blocked for a while: too many of its calls failed, or it made too many"
            raise CallRefusedError(grpc.StatusCode.UNAVAILABLE, REASON, message, retry_after=block.until - now)

    def _count_invalid(self, code: grpc.StatusCode | None, reason: str, peer: bytes, context: Context) -> None:
        weight = self._rules.weights.get(reason, 1 if code is _INVALID else 0)
        if weight:
            self._count(self._invalid, peer, context, weight)

    def _count(self, counter: _Counter, peer: bytes, context: Context, weight: int = 1) -> Block | None:
        """Count an event; the block that begins with it. Not counted: calls that were running when their peer was blocked."""
        now = self._now()
        if self._blocks.find(peer, now) is not None or counter.window.add(peer, now, weight) <= counter.limit:
            return None
        for each in (self._calls, self._failures, self._invalid):
            if each is not None:
                each.window.forget(peer)
        block = self._blocks.begin(peer, _name(context), now)
        event = Event.PEER_WOULD_BLOCK if self._shadow else Event.PEER_BLOCKED
        detail = f"for {block.seconds:g} s, block {block.level + 1}: more than {counter.limit} a minute"
        self._record(of_call(SecurityEvent(event, counter.check, detail=detail, peer=block.label), current_call()))
        if not self._shadow:
            self._share(SharedBlock(peer, block.label, block.level, block.seconds))
        return block


def _before_authentication() -> bool:
    """Whether the call ended in a guard, before its caller was known and its request was read."""
    call = current_call()
    return call is None or (call.principal is None and not call.request_bytes)


def _name(context: Context) -> str:
    """The peer as gRPC writes it."""
    call = current_call()
    return call.peer if call is not None else context.peer()
