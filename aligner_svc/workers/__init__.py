"""Killable child processes behind asyncio: for work that blocks, holds the GIL or reads hostile bytes.

`pool.WorkerPool` is the parent's side, which is not imported here: a child without asyncio takes 3 MB less. `serve` is the
child's. They exchange length-prefixed JSON headers and raw payloads through a socketpair, never pickle: all that a child taken
over by a hostile file can do is lie to the parent.
"""

from aligner_svc.workers.child import Priority, Turn, Work, attach, converse, receive_place, refuse_start, serve, serve_prepared
from aligner_svc.workers.errors import (
    WorkerCrashedError,
    WorkerDiedError,
    WorkerFailedError,
    WorkerKilledError,
    WorkerRefusedError,
    WorkerTimeoutError,
    WorkerUnavailableError,
)
from aligner_svc.workers.frames import Buffer, JsonValue
from aligner_svc.workers.sandbox import Sandbox, SandboxMode, forbid_core_dumps, log_sandbox

__all__ = [
    "Buffer",
    "JsonValue",
    "Priority",
    "Sandbox",
    "SandboxMode",
    "Turn",
    "Work",
    "WorkerCrashedError",
    "WorkerDiedError",
    "WorkerFailedError",
    "WorkerKilledError",
    "WorkerRefusedError",
    "WorkerTimeoutError",
    "WorkerUnavailableError",
    "attach",
    "converse",
    "forbid_core_dumps",
    "log_sandbox",
    "receive_place",
    "refuse_start",
    "serve",
    "serve_prepared",
]
