"""What the machine and its kernel provide: the sandbox, open files, memory, processors, the clock."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from aligner_svc.config import Settings
from aligner_svc.config.limits import available_cores
from aligner_svc.health.findings import Finding, fail, ok, skip, warn
from interceptors.overload.pressure import CGROUPS, Groups

_BUILT = 1_767_225_600.0
"""2026-01-01. A clock before that is wrong: this program is newer."""
_STA_UNSYNC = 0x0040
"""timex.h: the kernel's clock is not synchronised."""
_SPARE_FILES = 128
"""Descriptors in addition to those of connections: libraries, workers, logs, databases."""

# In a process of its own, as the restrictions cannot be undone. Reports what is in force once everything is closed.
_SANDBOXED = """
import json, os, sys
from aligner_svc.workers.sandbox import Sandbox
box = Sandbox("best-effort")
box.fence()
box.seal()
os.write(1, json.dumps([box.in_force, box.missing]).encode())
os._exit(0)
"""


async def sandbox(settings: Settings, code: str = _SANDBOXED) -> Sequence[Finding]:
    """Which layers of the sandbox work on this kernel, by trying them."""
    mode = settings.decode.sandbox
    if mode == "off":
        message = "off: a vulnerability of a decoder is one of the server"
        if settings.server.profile == "prod":
            return [warn("sandbox", message, "unset decode.sandbox")]
        return [skip("sandbox", message)]
    import_path = [path for path in sys.path if path]
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", f"import sys; sys.path[:0] = {import_path!r}\n{code}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        out, _ = await child.communicate()
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
    try:
        in_force, missing = json.loads(out)
    except (ValueError, TypeError):
        hint = "decoders may not start either: try a start with ALIGNER_DECODE__SANDBOX=off to see whether this is the cause"
        return [fail("sandbox", "a sandboxed process does not start", hint)]
    message = f"in force: {', '.join(in_force) or 'nothing'}"
    if not missing:
        return [ok("sandbox", message)]
    message = f"{'; '.join(f'no {layer}: {why}' for layer, why in missing.items())}. {message}"
    hint = "docs/sandbox.md describes what each layer stops, and what it needs in a container"
    return [(fail if mode == "required" else warn)("sandbox", message, hint)]


def open_files(settings: Settings) -> Sequence[Finding]:
    """Whether there are enough file descriptors for the allowed connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = settings.connections.most
    needed = connections + 8 * (settings.decode.workers + settings.engine.workers) + _SPARE_FILES
    message = f"{soft} may be open, {connections} connections need about {needed}"
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return [ok("files", message)]
    enough = hard == resource.RLIM_INFINITY or hard >= needed
    hint = f"LimitNOFILE={needed} (systemd) or ulimit -n {needed}{'' if enough else ', as root'}; or fewer: connections.most"
    return [warn("files", message, hint)]


def memory() -> Sequence[Finding]:
    """How much of the control group's memory is in use."""
    reading = Groups().read()
    if reading.memory is None:
        return [ok("memory", f"no limit of a control group; the machine has {_machine_memory()}")]
    message = f"{reading.memory:.0%} of the control group's limit is in use"
    if reading.memory >= 0.85:
        return [warn("memory", message, "raise the limit: from 85 % on calls are refused, and at 100 % the kernel kills")]
    return [ok("memory", message)]


def cpu(settings: Settings, root: Path = CGROUPS) -> Sequence[Finding]:
    """Whether there are more worker processes than usable processors."""
    cores = available_cores()
    quota = _cpu_quota(root)
    usable = float(cores) if quota is None else min(float(cores), quota)
    workers = settings.engine.workers if settings.engine.name == "pocketsphinx" else 0
    processes = settings.server.processes
    served = f"{processes} processes of the server, " if processes > 1 else ""
    decoders = settings.decode.workers
    message = f"{usable:g} usable processors, {served}{workers} aligner and {decoders} decoder processes, and as many for long"
    if processes > cores:
        hint = f"more processes than processors only wait: set ALIGNER_SERVER__PROCESSES={cores} or less"
        return [warn("cpu", message, hint)]
    if quota is not None and workers > max(1.0, quota + 0.5):
        hint = f"the control group's quota is {quota:g}: set ALIGNER_ENGINE__WORKERS={max(1, int(quota))}, or raise the quota"
        return [warn("cpu", message, hint)]
    if workers > cores:
        return [warn("cpu", message, f"more workers than processors only wait: set ALIGNER_ENGINE__WORKERS={cores}")]
    return [ok("cpu", message)]


def clock() -> Sequence[Finding]:
    """Whether the clock may be right: the validity of tokens and certificates depends on it."""
    now = time.time()
    shown = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    if now < _BUILT:
        return [fail("clock", f"it says {shown}, which is in the past", "set it: certificates and tokens are not valid yet")]
    if _unsynchronised():
        hint = "start an NTP client (timedatectl set-ntp true); fine in a virtual machine whose host sets the clock"
        return [warn("clock", f"{shown}, and not synchronised, says the kernel", hint)]
    return [ok("clock", f"{shown}, synchronised" if sys.platform == "linux" else shown)]


def _unsynchronised() -> bool:
    """Whether adjtimex(2) says so; reading needs no rights. False if it is not available."""
    if sys.platform != "linux":
        return False
    buffer = (ctypes.c_long * 64)()  # struct timex is smaller; all zeros: change nothing
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.byref(buffer))
    except (OSError, AttributeError):
        return False
    # int modes, long offset, long freq, long maxerror, long esterror, int status
    status = ctypes.cast(ctypes.byref(buffer, 5 * ctypes.sizeof(ctypes.c_long)), ctypes.POINTER(ctypes.c_int))[0]
    return state >= 0 and bool(status & _STA_UNSYNC)


def _cpu_quota(root: Path) -> float | None:
    """Processors' worth of time (control groups v2, then v1); None: no quota."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (root / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota_us = int((root / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        return quota_us / int((root / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii")) if quota_us > 0 else None
    return None


def _machine_memory() -> str:
    try:
        return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / (1 << 30):.1f} GiB"
    except (OSError, ValueError):
        return "an unknown amount"
