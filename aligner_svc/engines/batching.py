"""Makes batches of the calls that wait for one device, and keeps one call's trouble from the others.

Knows no model and no process: an engine hands in `run`, which works through one batch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from aligner_svc.domain import Caller
from aligner_svc.engines.device_health import RECHECK_FIRST, RECHECK_MAX, Device, tell
from aligner_svc.engines.fair_queue import FairQueue, Room, TokenBudget
from aligner_svc.errors import LimitExceededError, UnavailableError

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class DeviceMemoryError(Exception):
    """Raised by `run`: the batch did not fit into the device's memory. Nothing else is wrong with it."""


@dataclass(frozen=True, slots=True)
class Done(Generic[R]):
    """What became of one item. Seconds: in `run`, every try counted, and all the rest of the time."""

    result: R
    queued: float
    busy: float


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One call of `run`. `tokens`: sizes summed up; `computed`: what the device worked through, padding included."""

    items: int
    tokens: int
    computed: int
    seconds: float
    longest_wait: float
    """Seconds from `submit` to this call, of the item that waited longest."""
    failed: bool
    """It raised. A call that was cancelled because nobody waited for it has not failed."""
    origins: Sequence[object] = field(default=(), compare=False, repr=False)
    """What `origin` said of each of the items, when it was submitted."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """How things stand. `last_items` and `last_padding` (share, 0..1) are those of the newest batch that ended."""

    waiting: int
    waiting_tokens: int
    oldest_wait: float
    """Seconds; 0 if nothing waits."""
    running: int
    """Batches."""
    clients: int
    """With something waiting."""
    last_items: int
    last_padding: float
    budget: int
    """Tokens of one batch; less than configured for a while after the device's memory did not suffice."""
    failed: str | None
    """Why the device is out of service, for operators; None: it is in service."""


@dataclass(eq=False, slots=True)
class _Ticket(Generic[T, R]):
    """One item from `submit` to its end."""

    item: T
    size: int
    deadline: float | None
    since: float
    answer: asyncio.Future[Done[R]]
    origin: object = None
    busy: float = 0.0
    call: _Call[T, R] | None = None

    def gone(self, now: float) -> bool:
        """Whether nobody waits for the answer."""
        return self.answer.done() or (self.deadline is not None and self.deadline <= now)

    def refuse(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(eq=False, slots=True)
class _Call(Generic[T, R]):
    """One call of `run`, for a batch or a part of one. `tickets` is empty until `run` begins."""

    tickets: Sequence[_Ticket[T, R]] = ()
    task: asyncio.Task[Sequence[R]] | None = None
    abandoned: bool = False

    def abandon_if_unwanted(self) -> None:
        """Cancel if nobody waits for it. Once: a second cancellation would cut short what `run` does about the first."""
        unwanted = self.tickets and all(ticket.answer.done() for ticket in self.tickets)
        if self.task is not None and unwanted and not self.abandoned:
            self.abandoned = True
            self.task.cancel()


@dataclass(frozen=True, slots=True)
class BatchWatch:
    """Who wants to know of batches; see Batcher."""

    on_batch: Callable[[BatchReport], None] | None = None
    origin: Callable[[], object] = lambda: None


class Batcher(Generic[T, R]):
    """Batches for `slots` devices that are alike, or for one.

    An idle lane starts with whatever is there in the same turn of the event loop; while all are
    busy, items collect. Clients take turns by tokens (FairQueue). Every method belongs to one
    event loop.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        size: Callable[[T], int],
        budget: int,
        max_items: int,
        queue: int,
        slots: int = 1,
        padded: bool = False,
        max_padding: float = 0.1,
        check: Callable[[], Awaitable[None]] | None = None,
        on_failed: Callable[[str | None], None] | None = None,
        watch: BatchWatch | None = None,
        recheck_first: float = RECHECK_FIRST,
        recheck_max: float = RECHECK_MAX,
    ) -> None:
        """`run` answers one batch: `results[i]` belongs to `items[i]`. It may be cancelled; its lane is free when it ends.

        `size`: tokens of an item; less than 1 counts as 1. `budget`: tokens of a batch, the sum of
        its sizes, or longest * items with `padded`; one item over it runs alone. `max_padding`:
        share of a padded batch that may be padding, 0..1. `queue`: items that wait at most, those
        that run not counted. `check` has the device do something that is known to work, and
        raises if it does not; it must end. Without it the device is never held to have failed.
        `on_failed` is told why it has, for operators, and None when it works again. `watch`:
        `on_batch` is told after every call of `run`; `origin` is asked in the task that submits an
        item, and its answer comes back in the report. `recheck_first` and `recheck_max` in seconds.
        """
        if min(budget, max_items, slots) < 1 or queue < 0:
            raise ValueError("a batch holds one token and one item or more, on one lane or more; a queue has no places below 0")
        self._run = run
        self._size = size
        self._budget = TokenBudget(budget)
        self._max_items = max_items
        self._places = queue
        self._slots = slots
        self._max_padding = max_padding if padded else None
        self._device = Device(check, on_failed, self._on_device_change, (recheck_first, recheck_max))
        watch = watch or BatchWatch()
        self._on_batch = watch.on_batch
        self._origin = watch.origin
        self._waiting: FairQueue[_Ticket[T, R]] = FairQueue(queue)
        self._running: dict[asyncio.Task[None], list[_Ticket[T, R]]] = {}
        self._waking = False
        self._last: BatchReport | None = None
        self._closing: asyncio.Task[None] | None = None

    async def submit(self, item: T, caller: Caller) -> Done[R]:
        """Have one item worked through. Cancelling the task takes it out, wherever it is.

        Raises LimitExceededError when the queue is full or the device's memory does not hold the
        item; UnavailableError when the device fails, the deadline passes or the batcher closes;
        and what `run` raised if it did so for this item alone.
        """
        loop = asyncio.get_running_loop()
        if self._closing is not None:
            raise closed()
        if self._device.failed is not None:
            raise _device_failed()
        if caller.deadline is not None and caller.deadline <= loop.time():
            raise _expired()
        size = max(1, self._size(item))
        ticket: _Ticket[T, R] = _Ticket(item, size, caller.deadline, loop.time(), loop.create_future(), self._origin())
        self._enqueue(ticket, caller.client)
        timer = None
        if caller.deadline is not None:
            timer = loop.call_at(caller.deadline, lambda: ticket.refuse(_expired()))
        try:
            return await ticket.answer
        finally:
            if timer is not None:
                timer.cancel()
            self._leave(ticket)

    def state(self) -> QueueState:
        """How things stand now. Costs a look at every waiting item."""
        now = asyncio.get_running_loop().time()
        last = self._last
        return QueueState(
            waiting=len(self._waiting),
            waiting_tokens=self._waiting.tokens,
            oldest_wait=max((now - ticket.since for ticket in self._waiting), default=0.0),
            running=len(self._running),
            clients=self._waiting.clients,
            last_items=last.items if last else 0,
            last_padding=1 - last.tokens / last.computed if last else 0.0,
            budget=self._budget.in_force,
            failed=self._device.failed,
        )

    async def close(self) -> None:
        """Cancel what runs and wait until it has ended. Idempotent.

        Everybody who has no answer yet gets UnavailableError.
        """
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    # The queue

    @property
    def _free(self) -> bool:
        """Whether a batch may start."""
        return self._closing is None and self._device.in_service and len(self._running) < self._slots

    def _enqueue(self, ticket: _Ticket[T, R], client: str) -> None:
        if len(self._waiting) >= self._places:
            self._drop_gone()
            self._fill()  # a free lane may be about to take them
            if len(self._waiting) >= self._places and not self._free:
                raise queue_full()
        self._waiting.add(ticket, client, ticket.size)
        self._wake()

    def _leave(self, ticket: _Ticket[T, R]) -> None:
        """See to what an item leaves behind when its `submit` ends."""
        self._waiting.discard(ticket)
        if ticket.call is not None:
            ticket.call.abandon_if_unwanted()

    def _drop_gone(self) -> None:
        """Take out whom a timer or a cancelled task is about to: the loop may be late with both."""
        now = asyncio.get_running_loop().time()
        for ticket in [ticket for ticket in self._waiting if ticket.gone(now)]:
            self._waiting.discard(ticket)
            ticket.refuse(_expired())

    def _wake(self) -> None:
        """Fill the lanes when this turn of the loop is over: the windows of one recording arrive in one turn."""
        if not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._fill)

    def _fill(self) -> None:
        self._waking = False
        while self._free and len(self._waiting):
            self._drop_gone()
            tickets = self._waiting.take(Room(self._budget.in_force, self._max_items, self._max_padding))
            if tickets:
                # A context of its own: this may run in that of any caller, whose call the batch would seem to be.
                slot = asyncio.get_running_loop().create_task(self._work(tickets), context=Context())
                self._running[slot] = tickets
                slot.add_done_callback(self._release_slot)

    def _release_slot(self, slot: asyncio.Task[None]) -> None:
        """Have the next batch. The callers just answered ran before this; those that came again at once are in it."""
        for ticket in self._running.pop(slot):
            ticket.refuse(closed())  # there is none, but a fault of this file should hang nobody
        if not slot.cancelled() and (error := slot.exception()):
            log.error("a lane of the batcher broke", exc_info=error)
        self._fill()

    def _on_device_change(self) -> None:
        if self._device.failed is not None:
            for ticket in list(self._waiting):
                self._waiting.discard(ticket)
                ticket.refuse(_device_failed())
        self._wake()

    # One batch

    async def _work(self, tickets: list[_Ticket[T, R]]) -> None:
        """Work through one batch, in parts if it does not go as a whole."""
        parts: list[Sequence[_Ticket[T, R]]] = [tickets]
        failed_alone: list[tuple[_Ticket[T, R], Exception]] = []
        while parts and await self._device.trusted():
            part, error = await self._attempt(parts.pop())
            if error is None:
                continue
            if isinstance(error, DeviceMemoryError):
                if len(part) == 1:
                    part[0].refuse(_too_large())
                else:
                    parts.extend(_halves_by_size(part))
            elif len(part) == 1:
                failed_alone.append((part[0], error))
            else:
                parts.extend((part[len(part) // 2 :], part[: len(part) // 2]))
        if failed_alone:
            log.warning(
                "%d of %d items of a batch failed: %s", len(failed_alone), len(tickets), type(failed_alone[0][1]).__name__
            )
        # Only now: should the device turn out to be the culprit, a retry is worth it for these too.
        trusted = await self._device.trusted()
        for ticket, error in failed_alone:
            ticket.refuse(error if trusted else _device_failed())
        for ticket in tickets:
            ticket.refuse(_expired() if trusted else _device_failed())

    async def _attempt(self, part: Sequence[_Ticket[T, R]]) -> tuple[Sequence[_Ticket[T, R]], Exception | None]:
        """Call `run` once and hand out its answers.

        Returns who was in it, and its error if somebody waits for the answer.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        call: _Call[T, R] = _Call()
        call.task = loop.create_task(self._call_run(call, part))
        for ticket in part:
            ticket.call = call
        await asyncio.wait({call.task})
        for ticket in part:
            ticket.call = None
        ended, tickets = loop.time(), call.tickets
        if not tickets:
            return tickets, None
        room = _room_of(tickets, self._max_padding)
        error = _error_of(call.task)
        for ticket in tickets:
            ticket.busy += ended - began
        if error is None:
            for ticket, result in zip(tickets, call.task.result(), strict=True):
                if not ticket.answer.done():
                    ticket.answer.set_result(Done(result, max(0.0, ended - ticket.since - ticket.busy), ticket.busy))
        if call.abandoned:  # neither its failure nor its success says anything
            error = None
        else:
            self._reckon(error, room)
        longest_wait = began - min(ticket.since for ticket in tickets)
        origins = [ticket.origin for ticket in tickets]
        self._last = BatchReport(room.count, room.tokens, room.computed, ended - began, longest_wait, error is not None, origins)
        tell(self._on_batch, self._last)
        return tickets, error

    async def _call_run(self, call: _Call[T, R], part: Sequence[_Ticket[T, R]]) -> Sequence[R]:
        """Turn away whoever left since the batch was made, and run the others."""
        now = asyncio.get_running_loop().time()
        call.tickets = [ticket for ticket in part if not ticket.gone(now)]
        if not call.tickets:
            return ()
        results = await self._run([ticket.item for ticket in call.tickets])
        if len(results) != len(call.tickets):
            raise RuntimeError(f"{len(results)} results for {len(call.tickets)} items")
        return results

    def _reckon(self, error: Exception | None, room: Room) -> None:
        if error is None:
            self._device.worked()
            self._budget.sufficed()
        elif isinstance(error, DeviceMemoryError):
            log.warning("%d tokens in %d items do not fit into the device's memory", room.computed, room.count)
            self._budget.exceeded(room.computed)
        else:
            self._device.disappointed()

    async def _close(self) -> None:
        for ticket in [*self._waiting, *(ticket for tickets in self._running.values() for ticket in tickets)]:
            self._waiting.discard(ticket)
            ticket.refuse(closed())  # its `submit` cancels the call as it ends
        await self._device.close()
        await asyncio.gather(*self._running, return_exceptions=True)


def _room_of(tickets: Iterable[_Ticket[Any, Any]], max_padding: float | None) -> Room:
    room = Room(0, 0, max_padding)
    for ticket in tickets:
        room.add(ticket.size)
    return room


def _halves_by_size(tickets: Iterable[_Ticket[T, R]]) -> tuple[list[_Ticket[T, R]], list[_Ticket[T, R]]]:
    """Two parts of about the same tokens, none empty: the largest first, each to the lighter part."""
    halves: tuple[list[_Ticket[T, R]], list[_Ticket[T, R]]] = ([], [])
    weights = [0, 0]
    for ticket in sorted(tickets, key=lambda ticket: ticket.size, reverse=True):
        lighter = int(weights[1] < weights[0])
        halves[lighter].append(ticket)
        weights[lighter] += ticket.size
    return halves


def _error_of(task: asyncio.Task[Any]) -> Exception | None:
    """Why a finished task failed. Not with CancelledError: raised out of `submit` it would look like the caller's own."""
    if task.cancelled():
        return RuntimeError("the batch was cancelled from within")
    error = task.exception()
    if error is None or isinstance(error, Exception):
        return error
    raise error


def queue_full() -> LimitExceededError:
    """What a call over a queue's bound is refused with, here or in front of it."""
    return LimitExceededError("ENGINE_QUEUE_FULL", "too many calls are waiting, try again", retry_after=1.0)


def closed() -> UnavailableError:
    """What a call is refused with once there is nobody left to serve it."""
    return UnavailableError("ENGINE_UNAVAILABLE", "the aligner is shutting down, try again", retry_after=1.0)


def _expired() -> UnavailableError:
    return UnavailableError("DEADLINE_EXPIRED", "the call's deadline has passed")


def _device_failed() -> UnavailableError:
    return UnavailableError("ENGINE_FAILED", "the aligner's device fails; try again", retry_after=5.0)


def _too_large() -> LimitExceededError:
    return LimitExceededError("ENGINE_OUT_OF_MEMORY", "the aligner's memory does not hold this recording")
