"""The items that wait for a Batcher and run in it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Done(Generic[R]):
    """The result for one item. `busy`: seconds in `run`, retries included; `queued`: all the other seconds since `submit`."""

    result: R
    queued: float
    busy: float


@dataclass(eq=False, slots=True)
class Ticket(Generic[T, R]):
    """One item from `submit` to its result."""

    item: T
    size: int
    deadline: float | None
    since: float
    answer: asyncio.Future[Done[R]]
    origin: object = None
    busy: float = 0.0
    run: Run[T, R] | None = None

    def unwanted(self, now: float) -> bool:
        """Whether the caller no longer waits for the answer."""
        return self.answer.done() or (self.deadline is not None and self.deadline <= now)

    def refuse(self, error: BaseException) -> None:
        """Answer with an error, unless there is an answer already."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def succeed(self, result: R, now: float) -> None:
        """Answer with a result, unless there is an answer already."""
        if not self.answer.done():
            self.answer.set_result(Done(result, max(0.0, now - self.since - self.busy), self.busy))


@dataclass(eq=False, slots=True)
class Run(Generic[T, R]):
    """One call of a batcher's `run`, for a batch or a part of one. `tickets` is empty until the call begins."""

    tickets: Sequence[Ticket[T, R]] = ()
    task: asyncio.Task[Sequence[R]] | None = None
    abandoned: bool = False
    began: float = 0.0
    """When a device took it. One that was given ahead waits for that within the call."""

    def abandon_if_unwanted(self) -> None:
        """Cancel if no caller waits. Only once: a second cancellation would interrupt what `run` does about the first."""
        unwanted = self.tickets and all(ticket.answer.done() for ticket in self.tickets)
        if self.task is not None and unwanted and not self.abandoned:
            self.abandoned = True
            self.task.cancel()

    @property
    def error(self) -> Exception | None:
        """Why a finished call failed. Never CancelledError: raised by `submit` it would look like the caller's own."""
        assert self.task is not None
        if self.task.cancelled():
            return RuntimeError("the batch cancelled itself")
        error = self.task.exception()
        if error is None or isinstance(error, Exception):
            return error
        raise error


def halves_by_size(tickets: Iterable[Ticket[T, R]]) -> tuple[list[Ticket[T, R]], list[Ticket[T, R]]]:
    """Two parts of about the same tokens, neither empty for two tickets or more: largest first, each to the lighter part."""
    halves: tuple[list[Ticket[T, R]], list[Ticket[T, R]]] = ([], [])
    weights = [0, 0]
    for ticket in sorted(tickets, key=lambda ticket: ticket.size, reverse=True):
        lighter = int(weights[1] < weights[0])
        halves[lighter].append(ticket)
        weights[lighter] += ticket.size
    return halves
