"""What a Batcher says of itself, for metrics and traces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One call of a batcher's `run`.

    `tokens`: sum of the sizes; `computed`: tokens the device computed, padding included; `seconds`: since a device took it.
    """

    items: int
    tokens: int
    computed: int
    seconds: float
    longest_wait: float  # seconds from `submit` to this call, of the item that waited longest
    failed: bool  # it raised; a call cancelled because no caller waited for it has not failed
    origins: Sequence[object] = field(default=(), compare=False, repr=False)
    """What `BatchWatch.origin` returned for each item, when it was submitted."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """A snapshot. `last_items` and `last_padding` (share, 0..1) are those of the batch that finished last."""

    waiting: int
    waiting_tokens: int
    oldest_wait: float  # seconds; 0 if nothing waits
    running: int  # batches
    clients: int  # with items waiting
    last_items: int
    last_padding: float
    budget: int  # tokens of one batch; less than configured for a while after the device ran out of memory
    failed: str | None  # why the device is out of service, for operators; None: it is in service


@dataclass(frozen=True, slots=True)
class BatchWatch:
    """`on_batch` is called after every call of `run`; `origin` in the task that submits an item, for BatchReport.origins."""

    on_batch: Callable[[BatchReport], None] | None = None
    origin: Callable[[], object] = lambda: None
