"""How a call to a worker may fail. The messages are for logs, not for clients."""

from __future__ import annotations


class WorkerDiedError(Exception):
    """The child died or broke the protocol on every try, or one of the subclasses."""


class WorkerCrashedError(WorkerDiedError):
    """The call itself ended its child (a fault, a limit, a forbidden system call). Not retried: it would end the next one too."""


class WorkerKilledError(WorkerDiedError):
    """The last child was killed from outside (by an operator, for lack of memory) or hung: the call is not the cause."""


class WorkerUnavailableError(WorkerDiedError):
    """No child is available: the pool is closed, or its children do not start."""


class WorkerRefusedError(WorkerDiedError):
    """The child cannot start, and says why: the message is its own, in one line."""


class WorkerTimeoutError(Exception):
    """The call took longer than its timeout; its child was killed. Not retried: it would only take as long again."""

    def __init__(self, message: str, *, starved: bool = False) -> None:
        """`starved`: the child was given too little processor time to be judged: the machine is the cause, not the call."""
        super().__init__(message)
        self.starved = starved


class WorkerFailedError(RuntimeError):
    """The handler in the child raised, which is a bug. The child keeps running and the call is not retried."""

    def __init__(self, worker: str, class_name: str) -> None:
        """`class_name`: of the handler's exception, all that the child reports of it."""
        super().__init__(f"{worker}: the handler raised {class_name}")
        self.class_name = class_name
