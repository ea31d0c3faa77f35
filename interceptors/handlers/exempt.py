"""Limits for the methods that are exempt from authentication: anyone may call them, and no quota bounds what they hold.

gRPC takes a message whole before it hands it over, however small the largest valid one is, and has one limit for all methods.
So the time is limited that a request may take to arrive, and how many of an address are read at a time, and with both what a
client can make gRPC buffer: a valid request of these methods comes in the first packet of its call. Those that wait for their
turn hold no more than what the transport lets every client send ahead.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc

from interceptors.calls.call import Context, current_call
from interceptors.calls.peer import address_of, network_of
from interceptors.calls.refusal import CallRefusedError
from interceptors.calls.security_event import Event, Record, Repeated, SecurityEvent, of_call
from interceptors.handlers.arrivals import Arrival, Arrivals, WholeReads

READ_TIMEOUT: Final = 2.0
"""Seconds in which a request has to arrive once it is its turn ..."""
CROWDED_READ_TIMEOUT: Final = 0.05
"""... and seconds while another of its address waits, or more than READS arrive in all."""
READS: Final = 2
"""Requests of an address that are read at a time; the others of the address wait. Together they buffer so many messages."""
_RETRY: Final = 10.0
_EXHAUSTED: Final = grpc.StatusCode.RESOURCE_EXHAUSTED


class ExemptLimits:
    """Bounds the requests that arrive and the streams of responses that are open, of exempt methods. One instance a server."""

    def __init__(
        self,
        methods: Collection[str],
        *,
        record: Record,
        streams: int,
        streams_per_address: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`methods`: "/package.Service/Method". `streams`: of responses, open at a time; a health Watch is one.

        As many requests may be arriving, in all and of an address.
        """
        self.methods = frozenset(methods)
        self.refused: Counter[str] = Counter()
        """Calls by reason, for metrics."""
        self._record = record
        self._max_streams = streams
        self._max_streams_per_address = streams_per_address
        self._clock = clock
        self._arrivals = Arrivals(streams, lambda arrival: _unfinished())
        self._turns = WholeReads(READS)
        self._streams: Counter[bytes | None] = Counter()
        self._repeated = Repeated(clock)

    @property
    def reading(self) -> int:
        """Requests that are arriving, or wait for their turn."""
        return len(self._arrivals)

    @property
    def streaming(self) -> int:
        """Open streams of responses."""
        return self._streams.total()

    async def read(self, context: Context) -> Any:
        """The next message of a call, or grpc.aio.EOF. Raises CallRefusedError if it does not arrive in time, or too many do."""
        try:
            with self._arriving() as arrival:
                await self._turns.begin(arrival)
                try:
                    return await self._read(context, arrival)
                finally:
                    self._turns.end(arrival.owner)
        except CallRefusedError as refused:
            self.counted(refused)
            raise

    @contextmanager
    def _arriving(self) -> Iterator[Arrival]:
        address = _network()
        owner = "" if address is None else address.hex()
        if address is not None and self._arrivals.of(owner) >= self._max_streams_per_address:
            raise _unfinished()
        if not self._arrivals.make_room(owner):
            raise _unfinished()
        arrival = Arrival(owner, self._clock())
        self._arrivals.enter(arrival)
        try:
            yield arrival
        finally:
            self._arrivals.leave(arrival)

    async def _read(self, context: Context, arrival: Arrival) -> Any:
        loop = asyncio.get_running_loop()
        evicted: asyncio.Future[CallRefusedError] = loop.create_future()
        arrival.end = lambda refusal: None if evicted.done() else evicted.set_result(refusal)
        began = loop.time()
        reading = asyncio.ensure_future(context.read())
        reading.add_done_callback(_retrieve)
        while True:
            waited_for = (reading, evicted)
            await asyncio.wait(waited_for, timeout=CROWDED_READ_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await asyncio.sleep(0)  # on a busy event loop the timeout may come before what arrived long ago
            if reading.done():
                return reading.result()
            if evicted.done():
                raise evicted.result()
            timeout = CROWDED_READ_TIMEOUT if len(self._arrivals) > READS else READ_TIMEOUT
            if loop.time() - began >= timeout:
                break
        # It is not cancelled, as gRPC would not free a message that arrives right then; it ends with its call.
        message = f"the request did not arrive within {timeout:g} s"
        raise CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INCOMPLETE", message)

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Held while a stream of responses is open. Raises CallRefusedError if there are too many, from its address or in all."""
        address = _network()
        own, most = self._streams[address], self._max_streams_per_address
        if own >= most and address is not None:
            raise self._streams_exceeded(f"this address has {own} such streams open; at most {most} are accepted")
        if self.streaming >= self._max_streams:
            raise self._streams_exceeded(f"{self._max_streams} such streams are open, the most that are accepted")
        self._streams[address] += 1
        try:
            yield
        finally:
            self._streams[address] -= 1
            if not self._streams[address]:
                del self._streams[address]

    def _streams_exceeded(self, message: str) -> CallRefusedError:
        return self.counted(CallRefusedError(_EXHAUSTED, "STREAMS_EXCEEDED", message, retry_after=_RETRY))

    def counted(self, refused: CallRefusedError) -> CallRefusedError:
        """The same, counted, and audited once a minute for each reason and address."""
        self.refused[refused.reason] += 1
        if self._repeated.is_due((refused.reason, _network())):
            event = SecurityEvent(Event.EXEMPT_LIMIT_EXCEEDED, refused.reason.lower(), detail=refused.message)
            self._record(of_call(event, current_call()))
        return refused


def _network() -> bytes | None:
    """The address of the call, as a unit of the limits; None for a unix socket, all of whose clients look alike."""
    call = current_call()
    address = address_of(call.peer) if call is not None else None
    return None if address is None else network_of(address)


def _retrieve(reading: asyncio.Future[Any]) -> None:
    """Its error, or asyncio would log it: its call ended meanwhile."""
    if not reading.cancelled():
        reading.exception()


def _unfinished() -> CallRefusedError:
    message = "this address has too many unfinished requests of methods that need no credential; send whole ones"
    return CallRefusedError(_EXHAUSTED, "REQUESTS_UNFINISHED", message, retry_after=_RETRY)
