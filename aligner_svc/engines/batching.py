"""Batches the calls that wait for one device, and keeps a call that fails from failing the others in its batch.

Independent of models and processes: an engine passes in `run`, which computes one batch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from aligner_svc.domain import Caller
from aligner_svc.engines import refusals
from aligner_svc.engines.batch_report import BatchReport, BatchWatch, QueueState
from aligner_svc.engines.device_health import Device, notify
from aligner_svc.engines.tickets import Done, Run, Ticket, halves_by_size
from aligner_svc.workers.fair_queue import FairQueue, Room, TokenBudget

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class DeviceMemoryError(Exception):
    """Raised by `run`: the batch does not fit into the device's memory. Nothing else is wrong with it."""


class Batcher(Generic[T, R]):
    """Batches for `slots` devices or workers that are alike.

    An idle slot starts with whatever was submitted in the same turn of the event loop; while all slots are busy, items
    collect. Clients get equal shares of the tokens (FairQueue). All methods belong to one event loop.
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
        ahead: int = 0,
        max_padding: float | None = None,
        check: Callable[[], Awaitable[None]] | None = None,
        on_failed: Callable[[str | None], None] | None = None,
        watch: BatchWatch | None = None,
    ) -> None:
        """`run` computes one batch: `results[i]` belongs to `items[i]`. It may be cancelled; its slot is free when it ends.

        `ahead`: batches that `run` may be given besides one for each slot, to prepare them meanwhile. One starts only if it has
        at least half of what a batch may hold: what joins a smaller one until a slot is free would have to wait for the next.

        `size`: tokens of an item; less than 1 counts as 1. `budget`: tokens of a batch; one item over it runs alone.
        `max_padding` as in Room. `queue`: the most items that wait, those that run not counted. `check` has the device
        compute something known to work, and raises if it cannot; it must end. Without it the device is never taken out of
        service. `on_failed` is called with the reason when the device is taken out of service, and with None when it is back.
        """
        if min(budget, max_items, slots) < 1 or queue < 0:
            raise ValueError("budget, max_items and slots must be at least 1, queue at least 0")
        self._run = run
        self._size = size
        self.budget = TokenBudget(budget)
        self._max_items = max_items
        self._capacity = queue
        self._slots = slots
        self.ahead = ahead
        self._max_padding = max_padding
        self.device = Device(check, on_failed, self._on_device_change)
        self._watch = watch or BatchWatch()
        self._waiting: FairQueue[Ticket[T, R]] = FairQueue(queue)
        self._running: dict[asyncio.Task[None], list[Ticket[T, R]]] = {}
        self._runs: list[Run[T, R]] = []
        self._fill_scheduled = False
        self._last: BatchReport | None = None
        self._closing: asyncio.Task[None] | None = None

    async def submit(self, item: T, caller: Caller, *, admitted: bool = False, patient: bool = False) -> Done[R]:
        """Have one item computed. Cancelling the task removes it, wherever it is.

        `admitted`: also if the queue is full. `patient`: as in FairQueue.

        Raises LimitExceededError when the queue is full or the item does not fit into the device's memory; UnavailableError
        when the device fails, the deadline passes or the batcher closes; and what `run` raised for this item alone.
        """
        loop = asyncio.get_running_loop()
        if self._closing is not None:
            raise refusals.closed()
        if self.device.failed is not None:
            raise refusals.device_failed()
        if caller.deadline is not None and caller.deadline <= loop.time():
            raise refusals.expired()
        size = max(1, self._size(item))
        ticket: Ticket[T, R] = Ticket(item, size, caller.deadline, loop.time(), loop.create_future(), self._watch.origin())
        self._enqueue(ticket, caller.client, admitted=admitted, patient=patient)
        timer = None if caller.deadline is None else loop.call_at(caller.deadline, ticket.refuse, refusals.expired())
        try:
            return await ticket.answer
        finally:
            if timer is not None:
                timer.cancel()
            self._waiting.discard(ticket)
            if ticket.run is not None:
                ticket.run.abandon_if_unwanted()
            del ticket  # an error that is its answer has this frame in its traceback: a cycle would keep the recording

    def state(self) -> QueueState:
        """A snapshot. Iterates over every waiting item."""
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
            budget=self.budget.current,
            failed=self.device.failed,
        )

    async def close(self) -> None:
        """Cancel what runs, wait until it has ended, and answer everything else with UnavailableError. Idempotent."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    @property
    def _free(self) -> bool:
        """Whether a batch may start."""
        if self._closing is not None or not self.device.in_service:
            return False
        return len(self._running) < self._slots + (self.ahead if self._fills_half else 0)

    @property
    def _fills_half(self) -> bool:
        """Whether what waits is half of a batch."""
        return 2 * len(self._waiting) >= self._max_items or 2 * self._waiting.tokens >= self.budget.current

    def _enqueue(self, ticket: Ticket[T, R], client: str, *, admitted: bool, patient: bool) -> None:
        if len(self._waiting) >= self._capacity and not admitted:
            self._drop_unwanted()
            self._fill()  # a free slot may be about to take them
            if len(self._waiting) >= self._capacity and not self._free:
                raise refusals.queue_full()
        self._waiting.add(ticket, client, ticket.size, patient=patient)
        self._schedule_fill()

    def _drop_unwanted(self) -> None:
        """Remove the items that a timer or a cancelled task is about to remove: the event loop may be late with both."""
        now = asyncio.get_running_loop().time()
        for ticket in [ticket for ticket in self._waiting if ticket.unwanted(now)]:
            self._waiting.discard(ticket)
            ticket.refuse(refusals.expired())

    def _schedule_fill(self) -> None:
        """Fill the slots after this turn of the event loop: the windows of one recording arrive in one turn."""
        if not self._fill_scheduled:
            self._fill_scheduled = True
            asyncio.get_running_loop().call_soon(self._fill)

    def _fill(self) -> None:
        self._fill_scheduled = False
        while self._free and len(self._waiting):
            self._drop_unwanted()
            tickets = self._waiting.take(Room(self.budget.current, self._max_items, self._max_padding))
            if tickets:
                # In an empty context: otherwise the batch would appear to belong to the call whose task runs this.
                slot = asyncio.get_running_loop().create_task(self._work(tickets), context=Context())
                self._running[slot] = tickets
                slot.add_done_callback(self._release_slot)

    def _release_slot(self, slot: asyncio.Task[None]) -> None:
        """Start the next batch. The callers just answered ran before this; what they submitted at once is in it."""
        for ticket in self._running.pop(slot):
            ticket.refuse(refusals.closed())  # all have an answer already, unless this module has a bug: no caller may hang
        if not slot.cancelled() and (error := slot.exception()):
            log.error("a slot of the batcher failed", exc_info=error)
        self._fill()

    def _on_device_change(self) -> None:
        if self.device.failed is not None:
            for ticket in list(self._waiting):
                self._waiting.discard(ticket)
                ticket.refuse(refusals.device_failed())
        self._schedule_fill()

    async def _work(self, tickets: list[Ticket[T, R]]) -> None:
        """Compute one batch, in parts where it fails as a whole."""
        parts: list[Sequence[Ticket[T, R]]] = [tickets]
        failed_alone: list[tuple[Ticket[T, R], Exception]] = []
        while parts and await self.device.trusted():
            part, error = await self._attempt(parts.pop())
            if error is None:
                continue
            if isinstance(error, DeviceMemoryError):
                if len(part) == 1:
                    part[0].refuse(refusals.too_large())
                else:
                    parts.extend(halves_by_size(part))
            elif len(part) == 1:
                failed_alone.append((part[0], error))
            else:
                parts.extend((part[len(part) // 2 :], part[: len(part) // 2]))
        if failed_alone:
            kind = type(failed_alone[0][1]).__name__
            log.warning("%d of %d items of a batch failed: %s", len(failed_alone), len(tickets), kind)
        # Only now: if the device turns out to be the cause, these may be retried too.
        trusted = await self.device.trusted()
        for ticket, error in failed_alone:
            ticket.refuse(error if trusted else refusals.device_failed())
        for ticket in tickets:
            ticket.refuse(refusals.expired() if trusted else refusals.device_failed())

    async def _attempt(self, part: Sequence[Ticket[T, R]]) -> tuple[Sequence[Ticket[T, R]], Exception | None]:
        """Call `run` once and distribute its results.

        Returns the tickets that were in it, and its error unless it was abandoned.
        """
        loop = asyncio.get_running_loop()
        run: Run[T, R] = Run(began=loop.time())
        run.task = loop.create_task(self._call_run(run, part))
        for ticket in part:
            ticket.run = run
        self._runs.append(run)
        await asyncio.wait({run.task})
        self._end(run)
        for ticket in part:
            ticket.run = None
        now, tickets = loop.time(), run.tickets
        if not tickets:
            return tickets, None
        error = run.error
        room = Room(0, 0, self._max_padding)
        for ticket in tickets:
            ticket.busy += now - run.began
            room.add(ticket.size)
        if error is None:
            for ticket, result in zip(tickets, run.task.result(), strict=True):
                ticket.succeed(result, now)
        if run.abandoned:  # neither its failure nor its success says anything about the device
            error = None
        elif error is None:
            self.device.record_success()
            self.budget.record_success()
        elif isinstance(error, DeviceMemoryError):
            log.warning("%d tokens in %d items do not fit into the device's memory", room.computed, room.count)
            self.budget.record_out_of_memory(room.computed)
        else:
            self.device.record_failure()
        longest_wait = run.began - min(ticket.since for ticket in tickets)
        origins = [ticket.origin for ticket in tickets]
        self._last = BatchReport(
            room.count, room.tokens, room.computed, now - run.began, longest_wait, error is not None, origins
        )
        notify(self._watch.on_batch, self._last)
        return tickets, error

    def _end(self, run: Run[T, R]) -> None:
        """Its slot is free for the first that was given ahead."""
        place = self._runs.index(run)
        del self._runs[place]
        if place < self._slots <= len(self._runs):
            self._runs[self._slots - 1].began = asyncio.get_running_loop().time()

    async def _call_run(self, run: Run[T, R], part: Sequence[Ticket[T, R]]) -> Sequence[R]:
        """Drop the tickets no caller waits for any more, and run the others."""
        now = asyncio.get_running_loop().time()
        run.tickets = [ticket for ticket in part if not ticket.unwanted(now)]
        items = [ticket.item for ticket in run.tickets]
        del run, part  # as in `submit`: an error of this run becomes the tickets' answer
        results = await self._run(items) if items else ()
        if len(results) != len(items):
            raise RuntimeError(f"{len(results)} results for {len(items)} items")
        return results

    async def _close(self) -> None:
        for ticket in [*self._waiting, *(ticket for tickets in self._running.values() for ticket in tickets)]:
            self._waiting.discard(ticket)
            ticket.refuse(refusals.closed())  # its `submit` abandons the call as it ends
        await self.device.close()
        await asyncio.gather(*self._running, return_exceptions=True)
