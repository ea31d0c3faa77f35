"""An engine in two halves: queue, words and windows in the server, processes and devices on other machines.

The halves exchange what an engine and its processes exchange anyway: a JSON header and raw bytes. So what carries them knows no
engine, and a call of a long recording is many small ones, of which each can be repeated elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from aligner_svc.domain import Caller
from aligner_svc.workers import Buffer, JsonValue, SandboxMode
from aligner_svc.workers.pool import Reply

if TYPE_CHECKING:
    from aligner_svc.config import Settings
    from aligner_svc.config.engine import EngineSettings, QwenSettings
    from aligner_svc.engines.base import Engine
    from aligner_svc.engines.batch_report import BatchWatch, QueueState


class CallPool(Protocol):
    """What an engine asks of a WorkerPool."""

    async def start(self) -> None:
        """As WorkerPool's."""

    async def call(
        self,
        header: Mapping[str, JsonValue],
        payload: Buffer = b"",
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as WorkerPool's
        client: str = "",
    ) -> Reply:
        """As WorkerPool's; also raises AlignerError, which a queue elsewhere refused the call with."""

    async def close(self) -> None:
        """As WorkerPool's."""


class Lanes(Protocol):
    """The way to the other half."""

    at_once: int
    """Calls that all replicas together may be given at a time, so that their queues fill."""

    def lane(self, name: str) -> CallPool:
        """One of those that `Half.call` knows."""


@dataclass(frozen=True, slots=True)
class HalfSettings:
    """What the half on another machine is built from."""

    engine: EngineSettings
    qwen: QwenSettings
    sandbox: SandboxMode


class Half(Protocol):
    """Processes or devices and the queue in front of them."""

    slots: int
    """Calls worked on at a time."""

    async def start(self) -> None:
        """Load and warm up. Raises EngineStartError, WorkerDiedError."""

    async def call(self, lane: str, header: Mapping[str, JsonValue], payload: Buffer, caller: Caller) -> Reply:
        """Raises AlignerError, WorkerDiedError, WorkerTimeoutError. Cancelling the task frees what it holds."""

    def queues(self) -> Sequence[QueueState]:
        """Of those in which calls wait."""

    async def close(self) -> None:
        """Idempotent."""


class Halves(Protocol):
    """The module that REMOTE in config/engine.py names."""

    def near(self, settings: Settings, lanes: Lanes, watch: BatchWatch | None) -> Engine:
        """The engine for the server."""

    def far(self, settings: HalfSettings) -> Half:
        """What answers its lanes."""
