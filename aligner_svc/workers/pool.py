"""A fixed number of children, a first-come queue for them, and their replacement when they die."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aligner_svc.workers.errors import (
    WorkerCrashedError,
    WorkerDiedError,
    WorkerFailedError,
    WorkerTimeoutError,
    WorkerUnavailableError,
)
from aligner_svc.workers.frames import MAX_PAYLOAD, Buffer, JsonValue
from aligner_svc.workers.process import GoneError, WorkerProcess

log = logging.getLogger(__name__)

_ABANDONED: Final = 2.0
"""Seconds a child may go on with a call nobody waits for: most end within them, and a new child takes as long to load."""

_EXIT_TIMEOUT: Final = 1.0
"""Seconds a child has to exit at `close` before it is killed."""

_REAP_TIMEOUT: Final = 5.0
"""Seconds for the kernel to bury a killed child; one stuck in uninterruptible I/O is left to it."""

# What a child dies of by its own doing. SIGKILL is not one of them: that is an operator, or the kernel short of memory.
_OWN_DOING: Final = frozenset(
    {
        *(signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP),
        *(signal.SIGSYS, signal.SIGXCPU, signal.SIGXFSZ),
    }
)

_BACKOFF_FIRST, _BACKOFF_MAX = 0.1, 10.0
"""Seconds between tries to start a child that does not come up; doubled each time."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a child answered.

    `payload` is a read-only view of memory that belongs to the reply alone (a `bytes` would cost
    one more copy, on the event loop). `queued`: seconds spent waiting for a child. `busy`: seconds
    the child worked, transfers included. Both count every try.
    """

    header: dict[str, JsonValue]
    payload: memoryview
    queued: float
    busy: float


class WorkerPool:
    """`size` processes of `python -m module *args`, each answering one call at a time.

    Every method belongs to the event loop that ran `start`.
    """

    def __init__(
        self,
        module: str,
        size: int,
        *,
        args: Sequence[str] = (),
        name: str,
        retries: int = 1,
        start_timeout: float = 30.0,
        max_reply: int = MAX_PAYLOAD,
    ) -> None:
        """`name` is for logs and errors; `start_timeout` in seconds; `max_reply` bytes of one reply's payload."""
        self.size = size
        self.restarts = 0
        self.greeting: dict[str, JsonValue] = {}
        """What the latest child said of itself when it was ready: `sandbox` and `missing` (see Sandbox), if it has one."""
        self._module = module
        self._args = tuple(args)
        self.name = name
        self._retries = retries
        self._start_timeout = start_timeout
        self._max_reply = max_reply
        self._alive: set[WorkerProcess] = set()  # started and not yet given up; the idle ones are in _idle too
        self._idle: deque[WorkerProcess] = deque()
        self._waiters: deque[asyncio.Future[WorkerProcess]] = deque()
        self._calls: set[asyncio.Task[Any]] = set()
        self._chores: set[asyncio.Task[Any]] = set()
        self._unburied: set[WorkerProcess] = set()
        self._closing: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Calls waiting for a free child."""
        return sum(not waiter.done() for waiter in self._waiters)

    @property
    def pids(self) -> list[int]:
        """Process ids of the children that are up."""
        return sorted(worker.pid for worker in self._alive)

    async def start(self) -> None:
        """Start all children in parallel and wait until each is ready.

        Raises WorkerDiedError with the tail of a child's stderr if one does not come up.
        """
        try:
            started = await asyncio.gather(*(self._spawn() for _ in range(self.size)), return_exceptions=True)
            for outcome in started:
                if isinstance(outcome, BaseException):
                    raise outcome
        except BaseException:
            await self.close()
            raise

    async def call(self, header: Mapping[str, JsonValue], payload: Buffer = b"", *, timeout: float | None = None) -> Reply:  # noqa: ASYNC109 - it kills the child
        """Have one child answer. Calls are served in the order they came.

        `timeout`: seconds a child may take for one try, without the wait for it. A child that dies
        is replaced and the call tried again on another, `retries` times, unless it died by its
        own doing: the call would end another one just so. A cancelled call leaves the queue; if a
        child is at it already, the child may finish (its answer is dropped) or is replaced after 2 s.

        Raises WorkerDiedError (WorkerCrashedError, WorkerUnavailableError), WorkerTimeoutError, WorkerFailedError.
        """
        clock = asyncio.get_running_loop().time
        queued = busy = 0.0
        for tries_left in range(self._retries, -1, -1):
            began = clock()
            worker = await self._acquire(first=tries_left < self._retries)
            taken = clock()
            queued += taken - began
            attempt = self._keep(self._calls, self._attempt(worker, header, payload, timeout))
            try:
                answer, body = await asyncio.shield(attempt)
            except asyncio.CancelledError:
                asyncio.get_running_loop().call_later(_ABANDONED, attempt.cancel)
                raise
            except GoneError as error:
                if self._closing:
                    raise WorkerUnavailableError(f"{self.name}: closed") from None
                if not tries_left:
                    raise WorkerDiedError(f"{self.name}: {error}") from None
            else:
                return Reply(answer, body, queued, busy + clock() - taken)
            busy += clock() - taken
        raise AssertionError("unreachable: the last try returns or raises")

    async def close(self) -> None:
        """End all children: at once if idle, killed after a second otherwise. Idempotent.

        Calls in flight get WorkerUnavailableError.
        """
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _acquire(self, *, first: bool) -> WorkerProcess:
        """Take a free child, or wait for one; a retry goes `first`, it has waited already."""
        if self._closing:
            raise WorkerUnavailableError(f"{self.name}: closed")
        while self._idle:
            worker = self._idle[0]
            if worker.exited:  # its end of file is not noticed yet; a call need not spend a try on finding out
                self._died_idle(worker)
                continue
            self._idle.popleft()
            worker.unwatch()
            return worker
        waiter: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        (self._waiters.appendleft if first else self._waiters.append)(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._release(waiter.result())  # it was given a child in the very moment it was cancelled
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _release(self, worker: WorkerProcess) -> None:
        """Give a free child to whoever waits longest, or let it idle."""
        if worker not in self._alive or self._closing:
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(worker)
                return
        self._idle.append(worker)
        worker.watch(lambda: self._died_idle(worker))

    async def _attempt(
        self, worker: WorkerProcess, header: Mapping[str, JsonValue], payload: Buffer, seconds: float | None
    ) -> tuple[dict[str, JsonValue], memoryview]:
        """One try, in a task of its own: it owns the child until it gives it back or has it replaced."""
        try:
            async with asyncio.timeout(seconds):
                answer = await worker.exchange(header, payload, self._max_reply)
        except WorkerFailedError as error:
            log.error("%s\n%s", error, worker.take_tail())
            self._release(worker)
            raise
        except ValueError:  # the caller's header is no JSON: nothing was sent
            self._release(worker)
            raise
        except TimeoutError:
            self._replace(worker, f"took longer than {seconds} s")
            raise WorkerTimeoutError(f"{self.name}: took longer than {seconds} s") from None
        except GoneError as error:
            burial = self._replace(worker, str(error))
            if burial:
                await asyncio.wait({burial})  # which says what it died of, and may be cancelled by `close`
            if worker.fatal_signal in _OWN_DOING:
                raise WorkerCrashedError(f"{self.name}: the call ended its child ({worker.fatal_signal.name})") from None
            raise
        except asyncio.CancelledError:
            self._replace(worker, "busy with a cancelled call")
            raise
        self._release(worker)
        return answer

    def _died_idle(self, worker: WorkerProcess) -> None:
        self._replace(worker, "died idle")

    def _replace(self, worker: WorkerProcess, why: str) -> asyncio.Task[None] | None:
        """Kill a child and see to another, in the background. Returns its burial; None if that is seen to already."""
        if worker not in self._alive or self._closing:
            return None
        if worker in self._idle:
            self._idle.remove(worker)
        self._alive.discard(worker)
        worker.kill()  # too late for one that died by itself: its status stays what it died of
        self.restarts += 1
        self._unburied.add(worker)
        self._keep(self._chores, self._respawn())
        return self._keep(self._chores, self._reap_replaced(worker, why))

    async def _reap_replaced(self, worker: WorkerProcess, why: str) -> None:
        await self._reap(worker)
        ended = worker.fatal_signal.name if worker.fatal_signal else "no signal"
        log.warning("%s: child %d replaced: %s (%s)\n%s", self.name, worker.pid, why, ended, worker.take_tail())

    async def _respawn(self) -> None:
        pause = _BACKOFF_FIRST
        while True:
            try:
                await self._spawn()
            except (WorkerDiedError, OSError) as error:
                log.error("%s; next try in %.1f s", error, pause)
                if not self._alive:  # nobody is left to serve them: better to say so than to let them hang
                    self._fail_waiters(f"{self.name}: no child comes up")
                await asyncio.sleep(pause)
                pause = min(pause * 2, _BACKOFF_MAX)
            else:
                return

    async def _spawn(self) -> None:
        """Start one child and hand it out when it is ready. Raises WorkerDiedError, OSError."""
        worker = WorkerProcess(self._module, self._args, self.name)
        try:
            async with asyncio.timeout(self._start_timeout):
                greeting = await worker.ready()
        except (GoneError, TimeoutError) as error:
            reason = "not ready in time" if isinstance(error, TimeoutError) else "exited"
            worker.kill()
            self._unburied.add(worker)
            await self._reap(worker)
            raise WorkerDiedError(f"{self.name}: a child did not start ({reason}): {worker.take_tail()}") from None
        except BaseException:
            worker.kill()
            self._unburied.add(worker)
            raise
        if self._closing:
            worker.kill()
            await self._end(worker)
            raise WorkerUnavailableError(f"{self.name}: closed")
        self.greeting = greeting
        self._alive.add(worker)
        self._release(worker)

    async def _reap(self, worker: WorkerProcess) -> None:
        """Collect a killed child. The caller puts it in `_unburied` first: a task may be cancelled before it runs."""
        await worker.reap(_REAP_TIMEOUT)
        self._unburied.discard(worker)

    async def _close(self) -> None:
        self._fail_waiters(f"{self.name}: closed")
        await _finish(self._chores, cancel=True)
        for worker in self._idle:
            worker.unwatch()  # or its hang-up would look like a death
        for worker in self._alive:
            worker.hang_up()
        await _finish(self._calls, cancel=False)
        await asyncio.gather(*(self._end(worker) for worker in self._alive | self._unburied))
        self._alive.clear()
        self._idle.clear()
        self._unburied.clear()

    async def _end(self, worker: WorkerProcess) -> None:
        if not await worker.reap(_EXIT_TIMEOUT):
            worker.kill()
            await worker.reap(_REAP_TIMEOUT)

    def _fail_waiters(self, message: str) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(WorkerUnavailableError(message))

    def _keep(self, tasks: set[asyncio.Task[Any]], work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run in the background; the set keeps it from being collected half-way."""
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task


async def _finish(tasks: set[asyncio.Task[Any]], *, cancel: bool) -> None:
    mine = list(tasks)
    for task in mine:
        if cancel:
            task.cancel()
    await asyncio.gather(*mine, return_exceptions=True)
