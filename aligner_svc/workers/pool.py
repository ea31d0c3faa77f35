"""A fixed number of children with a queue that is fair between clients; children that die are replaced."""

from __future__ import annotations

import asyncio
import logging
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
from aligner_svc.workers.waiters import Waiters

log = logging.getLogger(__name__)

_CANCEL_TIMEOUT: Final = 2.0
"""Seconds a child may continue with a cancelled call: most calls end by then, and a new child takes as long to load."""

_DIED_IDLE: Final = "died idle"

_BACKOFF_FIRST, _BACKOFF_MAX = 0.1, 10.0
"""Seconds between attempts to start a child that fails to start; doubled each time."""


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
    """`size` processes of `python -m module *args`, each answering one call at a time.

    Use it on the event loop that ran `start`.
    """

    def __init__(
        self,
        module: str,
        size: int,
        *,
        args: Sequence[str] = (),
        name: str,
        start_timeout: float = 30.0,
        max_reply: int = MAX_PAYLOAD,
    ) -> None:
        """`name` is for logs and errors; `start_timeout` in seconds; `max_reply` bytes of one reply's payload."""
        self.size = size
        self.restarts = 0
        self.greeting: dict[str, JsonValue] = {}
        """Of the latest child: `sandbox` (layers in force) and `missing` (see Sandbox), or empty without a sandbox."""
        self._module = module
        self._args = tuple(args)
        self.name = name
        self._start_timeout = start_timeout
        self._max_reply = max_reply
        self._alive: set[WorkerProcess] = set()  # started and not replaced; the idle ones are in _idle too
        self._idle: deque[WorkerProcess] = deque()
        self._waiters: Waiters[WorkerProcess] = Waiters()
        self._calls: set[asyncio.Task[Any]] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._unreaped: set[WorkerProcess] = set()
        self._closing: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Calls waiting for a free child."""
        return len(self._waiters)

    @property
    def pids(self) -> list[int]:
        """Process ids of the running children."""
        return sorted(worker.pid for worker in self._alive)

    async def start(self) -> None:
        """Start all children in parallel and wait until each is ready.

        Raises WorkerDiedError with the end of a child's stderr if one does not start.
        """
        try:
            started = await asyncio.gather(*(self._spawn() for _ in range(self.size)), return_exceptions=True)
            for outcome in started:
                if isinstance(outcome, BaseException):
                    raise outcome
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
        on another, unless it crashed the child: it would crash the other too. A cancelled call leaves the queue; a
        child already working on it may finish within 2 s, and its answer is dropped, or is replaced.

        Raises WorkerDiedError (WorkerCrashedError, WorkerUnavailableError), WorkerTimeoutError, WorkerFailedError.
        """
        clock = asyncio.get_running_loop().time
        queued = busy = 0.0
        for is_retry in (False, True):
            began = clock()
            worker = await self._acquire(client, memoryview(payload).nbytes, first=is_retry)
            taken = clock()
            queued += taken - began
            attempt = self._start_task(self._calls, self._attempt(worker, header, payload, timeout))
            try:
                answer, body = await asyncio.shield(attempt)
            except asyncio.CancelledError:
                asyncio.get_running_loop().call_later(_CANCEL_TIMEOUT, attempt.cancel)
                raise
            except GoneError as error:
                if self._closing:
                    raise WorkerUnavailableError(f"{self.name}: closed") from None
                if is_retry:
                    raise WorkerDiedError(f"{self.name}: {error}") from None
            else:
                return Reply(answer, body, queued, busy + clock() - taken)
            busy += clock() - taken
        raise AssertionError("unreachable: the second try returns or raises")

    async def close(self) -> None:
        """End all children: at once if idle, by a kill after a second otherwise. Idempotent.

        Calls in flight get WorkerUnavailableError.
        """
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _acquire(self, client: str, size: int, *, first: bool) -> WorkerProcess:
        """Take a free child, or wait for one; a retry, which has waited already, goes `first`."""
        if self._closing:
            raise WorkerUnavailableError(f"{self.name}: closed")
        while self._idle:
            worker = self._idle.popleft()
            if not worker.exited:
                worker.unwatch()
                return worker
            self._replace(worker, _DIED_IDLE)  # its end of file is not handled yet: do not spend a try on it
        waiter = self._waiters.add(client, size, first=first)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._release(waiter.result())  # it was given a child just before it was cancelled
            raise
        finally:
            self._waiters.discard(waiter)

    def _release(self, worker: WorkerProcess) -> None:
        """Give a free child to the first waiter, or let it idle."""
        if worker not in self._alive or self._closing:
            return
        if waiter := self._waiters.pop():
            waiter.set_result(worker)
        else:
            self._idle.append(worker)
            worker.watch(lambda: self._replace(worker, _DIED_IDLE))

    async def _attempt(
        self, worker: WorkerProcess, header: Mapping[str, JsonValue], payload: Buffer, seconds: float | None
    ) -> tuple[dict[str, JsonValue], memoryview]:
        """One try, in a task of its own, which releases or replaces the child whatever happens."""
        try:
            async with asyncio.timeout(seconds):
                answer = await worker.exchange(header, payload, self._max_reply)
        except WorkerFailedError as error:
            log.error("%s\n%s", error, worker.take_tail())
            self._release(worker)
            raise
        except ValueError:  # the header is no JSON: nothing was sent
            self._release(worker)
            raise
        except TimeoutError:
            self._replace(worker, f"took longer than {seconds} s")
            raise WorkerTimeoutError(f"{self.name}: took longer than {seconds} s") from None
        except GoneError as error:
            reaping = self._replace(worker, str(error))
            if reaping:
                await asyncio.wait({reaping})  # for its fatal signal; `close` may cancel it
            if worker.crashed:
                raise WorkerCrashedError(f"{self.name}: the call ended its child ({worker.fatal_signal})") from None
            raise
        except asyncio.CancelledError:
            self._replace(worker, "busy with a cancelled call")
            raise
        self._release(worker)
        return answer

    def _replace(self, worker: WorkerProcess, why: str) -> asyncio.Task[None] | None:
        """Kill a child and start another, in the background. Returns the task that reaps it; None if it is replaced already."""
        if worker not in self._alive or self._closing:
            return None
        if worker in self._idle:
            self._idle.remove(worker)
        self._alive.discard(worker)
        worker.kill()  # does not change the exit status of one that died by itself
        self.restarts += 1
        self._unreaped.add(worker)
        self._start_task(self._background, self._respawn())
        return self._start_task(self._background, self._reap_replaced(worker, why))

    async def _reap_replaced(self, worker: WorkerProcess, why: str) -> None:
        await self._reap(worker)
        ended_by = worker.fatal_signal or "no signal"
        log.warning("%s: child %d replaced: %s (%s)\n%s", self.name, worker.pid, why, ended_by, worker.take_tail())

    async def _respawn(self) -> None:
        pause = _BACKOFF_FIRST
        while True:
            try:
                await self._spawn()
            except (WorkerDiedError, OSError) as error:
                log.error("%s; next try in %.1f s", error, pause)
                if not self._alive:  # an error rather than a wait without end
                    self._fail_waiters(f"{self.name}: no child starts")
                await asyncio.sleep(pause)
                pause = min(pause * 2, _BACKOFF_MAX)
            else:
                return

    async def _spawn(self) -> None:
        """Start one child and release it when it is ready. Raises WorkerDiedError, OSError."""
        worker = WorkerProcess(self._module, self._args, self.name)
        try:
            async with asyncio.timeout(self._start_timeout):
                greeting = await worker.ready()
        except BaseException as error:
            worker.kill()
            self._unreaped.add(worker)
            if not isinstance(error, GoneError | TimeoutError):
                raise
            await self._reap(worker)
            reason = "not ready in time" if isinstance(error, TimeoutError) else "exited"
            raise WorkerDiedError(f"{self.name}: a child did not start ({reason}): {worker.take_tail()}") from None
        if self._closing:
            worker.kill()
            await worker.reap()
            raise WorkerUnavailableError(f"{self.name}: closed")
        self.greeting = greeting
        self._alive.add(worker)
        self._release(worker)

    async def _reap(self, worker: WorkerProcess) -> None:
        """Reap a killed child. The caller adds it to `_unreaped` first: a task may be cancelled before it runs."""
        await worker.reap()
        self._unreaped.discard(worker)

    async def _close(self) -> None:
        self._fail_waiters(f"{self.name}: closed")
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for worker in self._idle:
            worker.unwatch()  # its hang-up is no death
        for worker in self._alive:
            worker.hang_up()
        await asyncio.gather(*self._calls, return_exceptions=True)
        await asyncio.gather(*(worker.end() for worker in self._alive | self._unreaped))
        self._alive.clear()
        self._idle.clear()
        self._unreaped.clear()

    def _fail_waiters(self, message: str) -> None:
        while waiter := self._waiters.pop():
            waiter.set_exception(WorkerUnavailableError(message))

    def _start_task(self, tasks: set[asyncio.Task[Any]], work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` in the background; the set keeps the task from being garbage-collected."""
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task
