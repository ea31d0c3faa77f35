"""Bounds the time for which a client is waited for while its request arrives.

gRPC has no such bound: a request that stops half-way holds its call, and what the server keeps for it, for ever. Only the time in
which the client is waited for counts, never that in which the server itself holds an upload back.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc

from interceptors.calls.refusal import BrokenRule, CallRefusedError

T = TypeVar("T")

LEAST_MESSAGE: Final = 512
"""Bytes that a message of a stream counts for at least. Live speech at 6 kbit/s is 750 bytes a second, in several messages; one
that sends two messages a second is at the default rate of 1 KiB/s, whatever they hold."""


_SILENT: Final = 0.9
"""Share of the idle time after which a stream that ran out of credit is called idle, and not slow."""


@dataclass(frozen=True, slots=True)
class ReadTimes:
    """Seconds, and bytes a second."""

    unary: float = 60.0
    """For a whole unary request: gRPC hands it over in one piece, and does not tell how much of it has come. Without its size
    a least rate cannot be applied; the largest one (10 MB) needs 1.4 Mbit/s to arrive in a minute."""
    idle: float = 60.0
    """Between two messages of a stream. The least rate is averaged over as long."""
    least_rate: float = 1024.0
    """Of a stream; 0: none."""
    longest: float = 18_000.0
    """For a stream's whole upload: four hours of live speech, and an hour of pauses."""
    field: str = "payload"
    """The request's field that refusals name."""


class Pace:
    """The time that one call's request may still take. `read` waits for each message, `close` ends it.

    A stream has a credit of `idle` seconds, which waiting uses up and every byte restores, up to as much: it is too slow when it
    has brought less than the least rate over about the last `idle` seconds, however fast it was before.

    One timer a call: it is set for the first message, and set anew only when it comes before the next one is due. A time-out of
    asyncio's for each message would take 10 us of it, this takes 3 us of the first one and 2 us of the others.
    """

    __slots__ = ("_credit", "_due", "_ended", "_loop", "_reading", "_stopped", "_timer", "_times", "_waited", "_whole")

    def __init__(self, times: ReadTimes, *, whole: bool) -> None:
        """`whole`: the request is one message."""
        self._times = times
        self._whole = whole
        self._loop = asyncio.get_running_loop()
        self._credit = times.idle
        self._waited = 0.0
        self._due = 0.0
        """The loop's time at which the client has been waited for long enough. Never less than for an earlier message."""
        self._timer: asyncio.TimerHandle | None = None
        self._reading: asyncio.Task[Any] | None = None
        self._stopped = False
        self._ended: CallRefusedError | None = None

    async def read(self, message: Callable[[], Awaitable[T]]) -> T:
        """What `message` waits for. Raises CallRefusedError when it takes too long or `end` is called."""
        if self._ended is not None:
            raise self._ended
        loop, task = self._loop, asyncio.current_task()
        assert task is not None
        cancelled, began = task.cancelling(), loop.time()
        self._due = began + self._left
        if self._timer is None:
            self._timer = loop.call_at(self._due, self._check)
        self._reading = task
        try:
            return await message()
        except asyncio.CancelledError:
            if not self._stopped or task.uncancel() > cancelled:  # not ours, or not ours alone
                raise
        finally:
            self._reading = None
            waited = loop.time() - began
            self._waited += waited
            self._credit -= waited
        raise self._ended or self._late(waited)

    def received(self, size: int) -> None:
        """A message of `size` bytes has come."""
        rate = self._times.least_rate
        restored = max(size, LEAST_MESSAGE) / rate if rate else math.inf
        self._credit = min(self._times.idle, self._credit + restored)

    def end(self, refusal: CallRefusedError) -> None:
        """Refuse the call when it next waits for its client, at once if it does now. The first refusal counts."""
        self._ended = self._ended or refusal
        self._stop()

    def close(self) -> None:
        """Nothing is read any more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        self._timer = None
        if self._reading is None:  # the next message sets it
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._check)
        else:
            self._stop()

    def _stop(self) -> None:
        if self._reading is not None and not self._stopped:
            self._stopped = True
            self._reading.cancel()

    @property
    def _left(self) -> float:
        """Seconds for which the next message is waited for."""
        times = self._times
        if self._whole:
            return times.unary
        return max(0.0, min(times.idle, self._credit, times.longest - self._waited))

    def _late(self, waited: float) -> CallRefusedError:
        """`waited`: seconds, for the message that did not come."""
        times = self._times
        if self._whole:
            message = f"the request did not arrive within {times.unary:g} seconds; over a slow line send a recording in a stream"
            return self._refusal("UPLOAD_TOO_SLOW", message)
        if self._waited >= times.longest:
            return self._refusal("UPLOAD_TOO_SLOW", f"the upload takes longer than {times.longest:g} seconds; send it in parts")
        if waited >= _SILENT * times.idle:
            return self._refusal("STREAM_IDLE", f"nothing was received for {times.idle:g} seconds; send without long pauses")
        message = f"less than {times.least_rate:g} bytes a second were received for {times.idle:g} seconds; send faster"
        return self._refusal("UPLOAD_TOO_SLOW", message)

    def _refusal(self, reason: str, message: str) -> CallRefusedError:
        # The client's fault, or its line's: not UNAVAILABLE, which would say that the server has too much to do.
        broken = (BrokenRule(self._times.field, reason, message),)
        return CallRefusedError(grpc.StatusCode.INVALID_ARGUMENT, reason, message, broken=broken)
