"""What a child gives up permanently before its first input: files, network, processes, most system calls.

Each layer helps where another is missing or has a hole. docs/sandbox.md says what each one stops.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from aligner_svc.workers.sandbox_landlock import forbid_files, version
from aligner_svc.workers.sandbox_seccomp import forbid_system_calls
from aligner_svc.workers.sandbox_syscalls import failure, system_call

if TYPE_CHECKING:
    from aligner_svc.workers.pool import WorkerPool

log = logging.getLogger(__name__)

SandboxMode: TypeAlias = Literal["required", "best-effort", "off"]
"""`required`: a child without one of the layers does not start. `best-effort`: it starts and reports what is missing. `off`:
resource limits only, for a debugger or a kernel that cannot run the rest."""

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CAPSET: Final = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION_3: Final = 0x20080522
_STANDARD_STREAMS: Final = 3


class SandboxError(SystemExit):
    """A layer is missing and the mode is `required`. The reason is on stderr already."""


@dataclass
class Sandbox:
    """Closed in two steps, before and after the last thread is started: `fence` and `seal`.

    Landlock applies to a thread and those started from it, so it comes first; the system call filter and
    RLIMIT_NPROC forbid threads, so they come last. Import and warm up everything before either.
    """

    mode: SandboxMode
    in_force: list[str] = field(default_factory=list)
    """Names of the layers in force, for logs."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why the others are not."""

    def fence(self) -> None:
        """Drop privileges and access to files, and end with the parent. Raises SandboxError."""
        if self.mode == "off":
            return
        if sys.platform != "linux":
            for layer in ("no_new_privs", "capabilities dropped", "landlock", "seccomp"):
                self._note(layer, f"not on {sys.platform}")
            return
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # No process of the same user may attach to it or read its memory.
        self._note("undumpable", _prctl(_PR_SET_DUMPABLE, 0))
        self._note("no_new_privs", _prctl(_PR_SET_NO_NEW_PRIVS, 1))
        abi = version()
        if isinstance(abi, int):
            threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names will do
            why = forbid_files(abi) if threads == 1 else f"{threads} threads run already, and it would apply to one"
            self._note(f"landlock abi {abi}", why)
        else:
            self._note("landlock", abi)
        self._note("capabilities dropped", _drop_capabilities())

    def seal(self) -> None:
        """Forbid descriptors, threads, processes and system calls that are not on the list. Raises SandboxError."""
        limit_resources()
        self._note("rlimits", None)
        if self.mode != "off" and sys.platform == "linux":
            self._note("seccomp", forbid_system_calls())

    def _note(self, layer: str, why_not: str | None) -> None:
        if why_not is None:
            self.in_force.append(layer)
            return
        if self.mode == "required":
            # Flushed: the parent kills a child whose socket closes, and that is before the interpreter writes its exit message.
            print(f"the sandbox is required, but {layer} is not available: {why_not}", file=sys.stderr, flush=True)
            raise SandboxError(1)
        self.missing[layer] = why_not


def forbid_core_dumps() -> None:
    """For a process that holds audio, of which a core dump is a copy; permanent, and inherited as far as the limit goes.

    The limit alone does not keep the kernel from piping a core to a program (core(5)); that a process is undumpable does.
    Only root may attach a debugger to it, or read its environment in /proc.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        _prctl(_PR_SET_DUMPABLE, 0)


def limit_memory(more: int) -> int:
    """Cap the address space at what is mapped now plus `more` bytes, permanently. Returns what is mapped now, 0 if unknown.

    Ends the process if its limit is lower than that already.
    """
    statm = Path("/proc/self/statm")
    if not statm.exists():  # not Linux, where this limit means little
        return 0
    mapped = int(statm.read_text().split()[0]) * resource.getpagesize()
    try:
        resource.setrlimit(resource.RLIMIT_AS, (mapped + more, mapped + more))
    except ValueError:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        sys.exit(
            f"it needs {(mapped + more) >> 20} MiB of address space and may have {hard >> 20}: raise or remove the limit "
            "(ulimit -v, LimitAS=), or lower limits.stream_audio_bytes or limits.audio_seconds"
        )
    return mapped


def limit_resources() -> None:
    """No new descriptor of any kind, no process, no thread; no file grows."""
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # the kernel exempts root, whom only the filter stops
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    # New descriptors must be below the limit, where the standard streams are; those already open keep working.
    # Not 0, which would make poll() fail: it accepts no more descriptors than the limit.
    resource.setrlimit(resource.RLIMIT_NOFILE, (_STANDARD_STREAMS, _STANDARD_STREAMS))


def _prctl(option: int, value: int) -> str | None:
    libc = ctypes.CDLL(None, use_errno=True)
    unused = ctypes.c_ulong(0)
    outcome = libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), unused, unused, unused)
    return os.strerror(ctypes.get_errno()) if outcome else None


def _drop_capabilities() -> str | None:
    """Root without capabilities cannot raise its limits again, mount, trace or load anything."""
    machine = os.uname().machine
    if machine not in _CAPSET:
        return f"not made for {machine}"
    return failure(system_call(_CAPSET[machine], struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24)))


def log_sandbox(pool: WorkerPool) -> None:
    """Log which layers of the sandbox are in force in a pool's children, which are all alike, and which are missing and why."""
    in_force, missing = pool.greeting.get("sandbox"), pool.greeting.get("missing")
    held = ", ".join(map(str, in_force)) if isinstance(in_force, list) else ""
    lacking = ", ".join(f"{layer} ({why})" for layer, why in missing.items()) if isinstance(missing, dict) else ""
    level = logging.WARNING if lacking else logging.INFO
    log.log(level, "%s sandbox: %s%s", pool.name, held or "none", f"; missing: {lacking}" if lacking else "")
