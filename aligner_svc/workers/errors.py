"""What a call to a worker may end in, besides an answer. None of it is fit for a client's eyes."""

from __future__ import annotations


class WorkerDiedError(Exception):
    """The child died or spoke nonsense, on every try; or one of the cases of the subclass."""


class WorkerCrashedError(WorkerDiedError):
    """The call itself ended its child (a fault, a limit, a forbidden system call). Not retried: it would end the next one too."""


class WorkerUnavailableError(WorkerDiedError):
    """There is no child to ask: the pool is closed, or none comes up any more. Not this call's fault."""


class WorkerTimeoutError(Exception):
    """The call took longer than its timeout; its child was killed. Not retried: it would only take as long again."""


class WorkerFailedError(RuntimeError):
    """The handler in the child raised: a bug there. The child lives on and the call is not retried."""

    def __init__(self, worker: str, class_name: str) -> None:
        super().__init__(f"{worker}: the handler raised {class_name}")
        self.class_name = class_name
        """Name of the exception's class, and all the parent is told of it."""
