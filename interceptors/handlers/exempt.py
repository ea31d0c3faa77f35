"""Limits for the methods that are exempt from authentication: anyone may call them, and no quota bounds what they hold.

gRPC takes a message whole before it hands it over, however small the largest valid one is, and has one limit for all methods. So
the time is limited that a request may take to arrive, and with it what a client can make gRPC buffer: a valid request of these
methods comes in the first packet of its call.
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

READ_TIMEOUT: Final = 2.0
"""Seconds in which a request has to arrive."""
READS: Final = 4
"""Requests that may be arriving for so long at a time ..."""
CROWDED_READ_TIMEOUT: Final = 0.05
"""... and seconds for further ones. Together they buffer READS messages and what the network delivers in this time."""
_STREAMS_RETRY: Final = 10.0
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
        """`methods`: "/package.Service/Method". `streams`: of responses, open at a time; a health Watch is one."""
        self.methods = frozenset(methods)
        self.refused: Counter[str] = Counter()
        """Calls by reason, for metrics."""
        self._record = record
        self._max_streams = streams
        self._max_streams_per_address = streams_per_address
        self._reads: set[asyncio.Future[Any]] = set()
        self._streams: Counter[bytes | None] = Counter()
        self._repeated = Repeated(clock)

    @property
    def reading(self) -> int:
        """Requests that are arriving."""
        return len(self._reads)

    @property
    def streaming(self) -> int:
        """Open streams of responses."""
        return self._streams.total()

    async def read(self, context: Context) -> Any:
        """The next message of a call, or grpc.aio.EOF. Raises CallRefusedError if it does not arrive in time."""
        timeout = READ_TIMEOUT if len(self._reads) < READS else CROWDED_READ_TIMEOUT
        reading = asyncio.ensure_future(context.read())
        self._reads.add(reading)
        reading.add_done_callback(self._read)
        await asyncio.wait((reading,), timeout=timeout)
        if not reading.done():
            await asyncio.sleep(0)  # on a busy event loop the timeout may come before what arrived long ago
        if reading.done():
            return reading.result()
        # It is not cancelled, as gRPC would not free a message that arrives right then; it ends with its call.
        message = f"the request did not arrive within {timeout:g} s"
        raise self.counted(CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INCOMPLETE", message))

    def _read(self, reading: asyncio.Future[Any]) -> None:
        self._reads.discard(reading)
        if not reading.cancelled():
            reading.exception()  # retrieved, or asyncio would log it: its call ended meanwhile

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
        return self.counted(CallRefusedError(_EXHAUSTED, "STREAMS_EXCEEDED", message, retry_after=_STREAMS_RETRY))

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
