"""Keeps a fixed number of children alive: those that die or hang are replaced."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aligner_svc.workers.errors import WorkerDiedError, WorkerRefusedError, WorkerUnavailableError
from aligner_svc.workers.frames import JsonValue
from aligner_svc.workers.heartbeat import keep_watch
from aligner_svc.workers.process import GoneError, StartRefusedError, WorkerProcess

log = logging.getLogger(__name__)

_BACKOFF_FIRST, _BACKOFF_MAX, _BACKOFF_NONE = 0.1, 10.0, 1.0
"""Seconds between attempts to start a child that fails to start: the first, the longest, the longest while there is no child.
Doubled each time.
"""

_OUTAGE: Final = 2.5
"""Seconds without a child that works, after which there is trouble.

The only child of a pool is replaced in 1 s, on a busy machine in 2: a file that ends its decoder must not end the service."""

_PROVEN: Final = 0.25
"""Seconds from which on a child that has started works: children that die as soon as they are ready do not."""


@dataclass(frozen=True, slots=True)
class PlaceState:
    """The children of one place: running, wanted, replaced so far; `busy`: seconds at calls."""

    up: int
    wanted: int
    restarts: int
    busy: float


class Children:
    """A process of `python -m module *args` for each place. Use it on the event loop that ran `start`."""

    def __init__(
        self,
        module: str,
        places: Sequence[str],
        *,
        args: Sequence[str],
        name: str,
        start_timeout: float | None,
        hung_after: float | None,
        outage: float | None,
        spare: bool,
        environment: Mapping[str, str] | None,
        on_ready: Callable[[WorkerProcess], None],
        on_lost: Callable[[WorkerProcess], None],
        on_none: Callable[[], None],
    ) -> None:
        """`hung_after`, `outage`, `spare` and `environment` as in WorkerPool.

        `on_ready` is called with a child that has started, `on_lost` with one that is being replaced, `on_none` when none is
        left and none starts.
        """
        self.module = module
        self.restarts: Counter[str] = Counter()
        """By place."""
        self.busy: defaultdict[str, float] = defaultdict(float)
        """Seconds at calls, by place."""
        self.greeting: dict[str, JsonValue] = {}
        """Of the latest child."""
        self.alive: set[WorkerProcess] = set()
        """Started and not replaced."""
        self.closing = False
        self._places = tuple(places)
        self._args = tuple(args)
        self._name = name
        self._start_timeout = start_timeout
        self._hung_after = hung_after
        self._outage = _OUTAGE if outage is None else outage
        self._keeps_spare = spare
        self._spare: WorkerProcess | None = None
        self._environment = environment
        self._on_ready = on_ready
        self._on_lost = on_lost
        self._on_none = on_none
        self._starting: set[WorkerProcess] = set()
        self._unreaped: set[WorkerProcess] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._worked_at = math.inf  # until one has worked, there is trouble only if none starts
        self._start_failed = False
        self._begun = False

    @property
    def wanted(self) -> int:
        """How many there should be: none before the start."""
        return len(self._places) if self._begun else 0

    @property
    def none_starts(self) -> bool:
        """Whether there is no child, and the last attempt to start one failed."""
        return self._start_failed and not self.alive

    @property
    def trouble(self) -> str | None:
        """Why no child works, for operators; None: one does, or the last one is just being replaced."""
        now = asyncio.get_running_loop().time()
        if any(child.pulse.stopped == 0 and now - child.ready_at >= _PROVEN for child in self.alive):
            self._worked_at = now
        elif self.none_starts:
            return f"{self._name}: no worker process starts"
        elif now - self._worked_at >= self._outage:
            return f"{self._name}: no worker process works"
        return None

    def by_place(self) -> dict[str, PlaceState]:
        """By the names of the places that have one."""
        up, wanted = Counter(child.place for child in self.alive), Counter(filter(None, self._places))
        return {place: PlaceState(up[place], count, self.restarts[place], self.busy[place]) for place, count in wanted.items()}

    @asynccontextmanager
    async def counted(self, child: WorkerProcess) -> AsyncIterator[None]:
        """Around a call to a child, for `busy`. Time in which it has two counts once."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            yield
        finally:
            now = clock()
            self.busy[child.place] += now - max(began, child.counted_until)
            child.counted_until = now

    async def start(self) -> None:
        """Start all in parallel and wait until each is ready. Raises WorkerDiedError; `close` then ends those that started."""
        self._begun = True
        started = await asyncio.gather(*(self._spawn(place) for place in self._places), return_exceptions=True)
        for outcome in started:
            if isinstance(outcome, BaseException):
                raise outcome
        self._worked_at = asyncio.get_running_loop().time()
        self._keep_watch()

    def begin(self) -> None:
        """If they are not started yet, start all in the background; those that fail are tried again."""
        if self._begun:
            return
        self._begun = True
        for place in self._places:
            self._start_task(self._respawn(place))
        self._keep_watch()

    def replace(self, child: WorkerProcess, why: str) -> asyncio.Task[None] | None:
        """Kill a child and start another, in the background. Returns the task that reaps it; None if it is replaced already."""
        if child not in self.alive or self.closing:
            return None
        self.alive.discard(child)
        self._on_lost(child)
        child.kill()  # does not change the exit status of one that died by itself
        self.restarts[child.place] += 1
        self._unreaped.add(child)
        self._start_task(self._respawn(child.place))
        return self._start_task(self._reap_replaced(child, why))

    async def hang_up(self) -> None:
        """Replace none any more, and send those alive end of file: calls in flight raise GoneError."""
        self.closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._spare is not None:
            self._spare.kill()
            self._unreaped.add(self._spare)
        for child in self.alive:
            child.hang_up()

    async def close(self) -> None:
        """After `hang_up`, and the end of the calls: at once for those that exit, by a kill after a second for others."""
        await asyncio.gather(*(child.end() for child in self.alive | self._unreaped))
        self.alive.clear()
        self._unreaped.clear()

    def _keep_watch(self) -> None:
        self._start_task(keep_watch(lambda: self.alive | self._starting, self._replace_hung, self._hung_after))

    def _replace_hung(self, child: WorkerProcess, why: str) -> None:
        """For one that is starting, too: its start fails."""
        child.hung = why
        child.kill()
        child.hang_up()  # a kill may have to wait for the end of an uninterruptible sleep
        if not child.call:  # else its call ends now, and replaces it
            self.replace(child, why)

    async def _respawn(self, place: str) -> None:
        pause = _BACKOFF_FIRST
        while True:
            try:
                await self._spawn(place)
            except (WorkerDiedError, OSError) as error:
                self._start_failed = True
                log.error("%s; next try in %.1f s", error, pause)
                if not self.alive:
                    self._on_none()
                await asyncio.sleep(pause)
                pause = min(pause * 2, _BACKOFF_MAX if self.alive else _BACKOFF_NONE)
            else:
                return

    def _process(self) -> WorkerProcess:
        """The spare, or a new process."""
        child, self._spare = self._spare, None
        if child is None or child.exited:
            if child is not None:
                self._unreaped.add(child)
                self._start_task(self._reap(child))
            child = WorkerProcess(self.module, self._args, self._name, self._environment)
        return child

    async def _spawn(self, place: str) -> None:
        """Start one child and hand it over when it is ready. Raises WorkerDiedError, OSError."""
        child = self._process()
        child.place = place
        self._starting.add(child)
        try:
            async with asyncio.timeout(self._start_timeout):
                if self._keeps_spare:
                    await child.assign(place)
                greeting = await child.ready()
        except BaseException as error:
            child.kill()
            self._unreaped.add(child)
            if not isinstance(error, GoneError | TimeoutError):
                raise
            await self._reap(child)
            if isinstance(error, StartRefusedError):
                raise WorkerRefusedError(str(error)) from None
            reason = "not ready in time" if isinstance(error, TimeoutError) else "hung" if child.hung else "exited"
            raise WorkerDiedError(f"{self._name}: a child did not start ({reason}): {child.take_tail()}") from None
        finally:
            self._starting.discard(child)
        if self.closing:
            child.kill()
            await child.reap()
            raise WorkerUnavailableError(f"{self._name}: closed")
        self.greeting = greeting
        self._start_failed = False
        self.alive.add(child)
        self._on_ready(child)
        if self._keeps_spare and self._spare is None and not self._starting:
            self._spare = self._process()

    async def _reap_replaced(self, child: WorkerProcess, why: str) -> None:
        await self._reap(child)
        ended_by = child.fatal_signal or "no signal"
        tail = child.take_tail()
        log.warning("%s: child %d replaced: %s (%s)\n%s", self._name, child.pid, child.hung or why, ended_by, tail)

    async def _reap(self, child: WorkerProcess) -> None:
        """Reap a killed child. The caller adds it to `_unreaped` first: a task may be cancelled before it runs."""
        await child.reap()
        self._unreaped.discard(child)

    def _start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` in the background; the set keeps the task from being garbage-collected."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
