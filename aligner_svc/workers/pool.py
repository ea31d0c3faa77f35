"""A fixed number of children with a queue that is fair between clients."""

# long: a call takes, keeps, loses and returns a child under one set of rules
from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from aligner_svc.workers.children import Children, PlaceState
from aligner_svc.workers.errors import (
    WorkerCrashedError,
    WorkerDiedError,
    WorkerFailedError,
    WorkerKilledError,
    WorkerTimeoutError,
    WorkerUnavailableError,
)
from aligner_svc.workers.frames import MAX_PAYLOAD, Buffer, JsonValue
from aligner_svc.workers.heartbeat import cpu_seconds
from aligner_svc.workers.process import BehindError, GoneError, ProtocolError, WorkerProcess
from aligner_svc.workers.waiters import Vacancies, Waiters

log = logging.getLogger(__name__)

T = TypeVar("T")

_CANCEL_TIMEOUT: Final = 2.0
"""Seconds a child may continue with a cancelled call: most calls end by then, and a new child takes as long to load."""

_DIED_IDLE: Final = "died idle"

_HUNG_AFTER: Final = 2.0
"""Seconds without processor time at a call: decoding and aligning wait for nothing but the processor."""

_STARVED: Final = 0.9
"""Share of a timeout below which a child's processor time says nothing about its call."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A child's answer.

    `payload` is a read-only view of memory of its own (a `bytes` would cost one more copy, on the event loop).
    `queued`: seconds of waiting for a child. `busy`: seconds of its work, transfers included. Both are over all tries.
    """

    header: dict[str, JsonValue]
    payload: memoryview
    queued: float
    busy: float


class WorkerPool:
    """`size` processes of `python -m module *args`, each answering one call after the other.

    Use it on the event loop that ran `start`.
    """

    def __init__(
        self,
        module: str,
        size: int,
        *,
        args: Sequence[str] = (),
        name: str,
        start_timeout: float | None = 30.0,
        max_reply: int = MAX_PAYLOAD,
        hung_after: float | None = _HUNG_AFTER,
        places: Sequence[str] = (),
        spare: bool = False,
        outage: float | None = None,
        blames_calls: bool = True,
        at_once: int = 1,
        environment: Mapping[str, str] | None = None,
        on_demand: bool = False,
    ) -> None:
        """`name` is for logs and errors; `start_timeout` in seconds; `max_reply` bytes of one reply's payload.

        `hung_after`: seconds without processor time after which a child at a call hangs; None: calls may sleep.
        `places`: where each child works, e.g. its device; one that is replaced is replaced there. Names may repeat.
        `spare`: keep one more process that has imported its libraries; each child learns its place from `receive_place`.
        `outage`: seconds without a child that works, after which there is `trouble`; default: a replacement is none.
        `blames_calls`: a fault in a child (SIGSEGV) is its call's, which is not retried. `at_once`: calls that a
        child has at a time; more than one needs `serve_prepared`. `environment`: variables for the children, besides a few
        that all get; default: those that keep libraries to one thread. `on_demand`: `start` starts none; the first call starts
        all, and waits for one.
        """
        self.size = size
        self.name = name
        self._max_reply = max_reply
        self._room: Vacancies[WorkerProcess] = Vacancies(at_once)
        self._children = Children(
            module,
            places or ("",) * size,
            args=args,
            name=name,
            start_timeout=start_timeout,
            hung_after=hung_after,
            outage=outage,
            spare=spare,
            environment=environment,
            on_ready=self._open,
            on_lost=self._room.remove,
            on_none=lambda: self._fail_waiters(f"{name}: no child starts"),
        )
        self._on_demand = on_demand
        self._blames_calls = blames_calls
        self._waiters: Waiters[WorkerProcess] = Waiters()
        self._calls: set[asyncio.Task[Any]] = set()
        self._closing: asyncio.Task[None] | None = None

    @property
    def restarts(self) -> int:
        """Children that were replaced so far."""
        return self._children.restarts.total()

    def places(self) -> dict[str, PlaceState]:
        """By name, if there are any."""
        return self._children.by_place()

    @property
    def greeting(self) -> dict[str, JsonValue]:
        """Of the latest child: `sandbox` (layers in force) and `missing` (see Sandbox), or empty without a sandbox."""
        return self._children.greeting

    @property
    def trouble(self) -> str | None:
        """Why calls are not served, for operators; None: a child works, or the last one is just being replaced."""
        return self._children.trouble

    @property
    def wanted(self) -> int:
        """How many children there should be: with `on_demand` none before the first call."""
        return self._children.wanted

    @property
    def waiting(self) -> int:
        """Calls waiting for a free child."""
        return len(self._waiters)

    @property
    def pids(self) -> list[int]:
        """Process ids of the running children."""
        return sorted(worker.pid for worker in self._children.alive)

    async def start(self) -> None:
        """Start all children in parallel and wait until each is ready; with `on_demand` nothing, until the first call.

        Raises WorkerDiedError with the end of a child's stderr if one does not start.
        """
        if self._on_demand:
            return
        try:
            await self._children.start()
        except BaseException:
            await self.close()
            raise

    async def call(
        self,
        header: Mapping[str, JsonValue],
        payload: Buffer = b"",
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it kills the child
        client: str = "",
    ) -> Reply:
        """Have one child answer. Clients that wait get equal shares of the payloads' bytes.

        `timeout`: seconds for one try, without the wait for a child. If the child dies, the call is tried once more
        on another, which has no other call then, unless it crashed the child: it would crash the other too. A call that waited
        in the child behind another was not tried. A cancelled call leaves the queue; a child already working on it may finish
        within 2 s, and its answer is dropped, or is replaced.

        Raises WorkerDiedError and its subclasses, WorkerTimeoutError, WorkerFailedError.
        """
        clock = asyncio.get_running_loop().time
        queued = busy = 0.0
        again = is_retry = False
        while True:
            began = clock()
            share = self._room.full if again else 1  # another might end its child again, even while that prepares it
            worker = await self._acquire(client, memoryview(payload).nbytes, share, first=again)
            taken = clock()
            queued += taken - began
            attempt = self._start(self._attempt(worker, share, header, payload, timeout))
            try:
                answer, body = await asyncio.shield(attempt)
            except asyncio.CancelledError:
                asyncio.get_running_loop().call_later(_CANCEL_TIMEOUT, attempt.cancel)
                raise
            except GoneError as error:
                if self._closing:
                    raise WorkerUnavailableError(f"{self.name}: closed") from None
                again = True
                if is_retry:
                    killed = worker.killed and not isinstance(error, ProtocolError)
                    raise (WorkerKilledError if killed else WorkerDiedError)(f"{self.name}: {error}") from None
                is_retry = not isinstance(error, BehindError)
            else:
                return Reply(answer, body, queued, busy + clock() - taken)
            finally:
                del attempt  # its error has this frame, and with it the payload, in its traceback
            busy += clock() - taken

    async def close(self) -> None:
        """End all children, those at calls by a kill after a second; their calls get WorkerUnavailableError. Idempotent."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _acquire(self, client: str, size: int, share: int, *, first: bool) -> WorkerProcess:
        """Take `share` of a child's room, or wait for it; a retry, which has waited already, goes `first`."""
        if self._closing:
            raise WorkerUnavailableError(f"{self.name}: closed")
        if self._on_demand:
            self._children.begin()
        if self._children.none_starts:
            raise WorkerUnavailableError(f"{self.name}: no child starts")
        while (first or not self._waiters.retries) and (worker := self._room.find(share)):
            if not worker.exited or not self._room.idle(worker):
                return self._take(worker, share)
            self._children.replace(worker, _DIED_IDLE)  # its end of file is not handled yet: do not spend a try on it
        waiter = self._waiters.add(client, size, first=first)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._release(waiter.result(), share)  # it was given a child just before it was cancelled
            raise
        finally:
            self._waiters.discard(waiter)

    def _take(self, worker: WorkerProcess, share: int) -> WorkerProcess:
        if self._room.idle(worker):
            worker.unwatch()
        self._room.take(worker, share)
        return worker

    def _open(self, worker: WorkerProcess) -> None:
        """A child has started."""
        self._room.add(worker)
        self._release(worker, self._room.full)

    def _release(self, worker: WorkerProcess, share: int) -> None:
        """Give the room to those who wait, or let the child idle."""
        if worker not in self._room or self._closing:
            return
        self._room.give(worker, share)
        if self._room.idle(worker):
            worker.watch(lambda: self._children.replace(worker, _DIED_IDLE))
        # A retry waits until a child has all its room, and the others wait behind it.
        while chosen := self._room.find(share := self._room.full if self._waiters.retries else 1):
            waiter = self._waiters.pop()
            if waiter is None:
                return
            waiter.set_result(self._take(chosen, share))

    async def _attempt(
        self, worker: WorkerProcess, share: int, header: Mapping[str, JsonValue], payload: Buffer, seconds: float | None
    ) -> tuple[dict[str, JsonValue], memoryview]:
        """One try, in a task of its own, which releases or replaces the child whatever happens."""
        began = cpu_seconds(worker.pid)
        if seconds is not None:
            seconds *= worker.calls + 1  # those before it take their time first
        try:
            async with asyncio.timeout(seconds), self._children.counted(worker):
                answer = await worker.exchange(header, payload, self._max_reply)
        except WorkerFailedError as error:
            log.error("%s\n%s", error, worker.take_tail())
            self._release(worker, share)
            raise
        except ValueError:  # the header is no JSON: nothing was sent
            self._release(worker, share)
            raise
        except TimeoutError:
            used = (cpu_seconds(worker.pid) or 0.0) - (began or 0.0)
            why = f"took longer than {seconds} s, {used:.1f} s of processor time"
            self._children.replace(worker, why)
            raise WorkerTimeoutError(f"{self.name}: {why}", starved=used < _STARVED * (seconds or 0.0)) from None
        except GoneError as error:
            reaping = self._children.replace(worker, str(error))
            if reaping:
                await asyncio.wait({reaping})  # for its fatal signal; `close` may cancel it
            if worker.crashed and self._blames_calls and not isinstance(error, BehindError):
                raise WorkerCrashedError(f"{self.name}: the call ended its child ({worker.fatal_signal})") from None
            raise
        except asyncio.CancelledError:
            self._children.replace(worker, "busy with a cancelled call")
            raise
        self._release(worker, share)
        return answer

    async def _close(self) -> None:
        self._fail_waiters(f"{self.name}: closed")
        for worker in self._room.all_idle():
            worker.unwatch()
        await self._children.hang_up()
        await asyncio.gather(*self._calls, return_exceptions=True)
        await self._children.close()

    def _fail_waiters(self, message: str) -> None:
        while waiter := self._waiters.pop():
            waiter.set_exception(WorkerUnavailableError(message))

    def _start(self, attempt: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run it in a task; the set keeps the task from being garbage-collected."""
        task = asyncio.get_running_loop().create_task(attempt)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task
