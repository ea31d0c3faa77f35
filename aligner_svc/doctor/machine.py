"""What the machine and its kernel give: the sandbox, open files, memory, processors, the clock."""

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
from aligner_svc.health.findings import Finding, Severity
from interceptors.overload.pressure import Groups

_BUILT = 1_767_225_600.0
"""2026-01-01. A clock before that is wrong: this program is younger."""
_STA_UNSYNC = 0x0040
"""timex.h: the kernel's clock is not synchronised."""
_SPARE_FILES = 128
"""Descriptors beside connections: libraries, workers, logs, databases."""
_CGROUPS = Path("/sys/fs/cgroup")

# In a process of its own: what it gives up, it gives up for good. It says what holds after everything is closed.
_SANDBOXED = """
import json, os, sys
from aligner_svc.workers.sandbox import Sandbox
box = Sandbox("best-effort")
box.fence()
box.seal()
os.write(1, json.dumps([box.in_force, box.missing]).encode())
os._exit(0)
"""


async def sandbox(settings: Settings) -> Sequence[Finding]:
    """Which layers hold on this kernel: tried, not guessed."""
    mode = getattr(settings.decode, "sandbox", "best-effort")
    if mode == "off":
        state = Severity.WARN if settings.server.profile == "prod" else Severity.SKIP
        return [Finding("sandbox", state, "switched off: a hole in a decoder is a hole in the server", "unset decode.sandbox")]
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", f"import sys; sys.path[:0] = {_import_path()!r}\n{_SANDBOXED}"),
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
        hint = "workers would not start, or without it: start one with ALIGNER_DECODE__SANDBOX=off to see whether that is why"
        return [Finding("sandbox", Severity.FAIL, "a sandboxed process does not come up", hint)]
    said = f"in force: {', '.join(in_force) or 'nothing'}"
    if not missing:
        return [Finding("sandbox", Severity.OK, said)]
    lacks = "; ".join(f"no {layer}: {why}" for layer, why in missing.items())
    state = Severity.FAIL if mode == "required" else Severity.WARN
    hint = "docs/sandbox.md says what each layer stops, and what a container needs for it"
    return [Finding("sandbox", state, f"{lacks}. {said}", hint)]


def open_files(settings: Settings) -> Sequence[Finding]:
    """Whether there are descriptors for as many connections as are let in."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = settings.connections.most
    needed = most + 4 * (settings.decode.workers + settings.engine.workers) + _SPARE_FILES
    said = f"{soft} may be open, {most} connections need about {needed}"
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return [Finding("files", Severity.OK, said)]
    enough = hard == resource.RLIM_INFINITY or hard >= needed
    hint = f"LimitNOFILE={needed} (systemd) or ulimit -n {needed}{'' if enough else ', as root'}; or fewer: connections.most"
    return [Finding("files", Severity.WARN, said, hint)]


def memory() -> Sequence[Finding]:
    """What the control group leaves."""
    reading = Groups().read()
    if reading.memory is None:
        return [Finding("memory", Severity.OK, f"no limit of a control group; the machine has {_machine_memory()}")]
    said = f"{reading.memory:.0%} of the control group's limit is in use"
    if reading.memory >= 0.85:
        return [Finding("memory", Severity.WARN, said, "calls are refused from 85 % on, and the kernel kills at 100 %: raise it")]
    return [Finding("memory", Severity.OK, said)]


def cpu(settings: Settings, root: Path = _CGROUPS) -> Sequence[Finding]:
    """Whether there are as many workers as processors that may be used."""
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(root)
    may = min(float(seen), quota) if quota is not None else float(seen)
    workers = settings.engine.workers if settings.engine.name == "pocketsphinx" else 0
    said = f"{may:g} processors may be used, {workers} aligner and {settings.decode.workers} decoder processes"
    if quota is not None and workers > max(1.0, quota + 0.5):
        hint = f"the control group's quota is {quota:g}: set ALIGNER_ENGINE__WORKERS={max(1, int(quota))}, or raise the quota"
        return [Finding("cpu", Severity.WARN, said, hint)]
    if workers > seen:
        return [Finding("cpu", Severity.WARN, said, f"more than there are wait for each other: ALIGNER_ENGINE__WORKERS={seen}")]
    return [Finding("cpu", Severity.OK, said)]


def clock() -> Sequence[Finding]:
    """Whether it can be right: tokens and certificates are judged by it."""
    now = time.time()
    shown = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    if now < _BUILT:
        return [
            Finding(
                "clock", Severity.FAIL, f"it says {shown}, which is past", "set it: certificates and tokens are not valid yet"
            )
        ]
    if _unsynchronised():
        hint = "start an NTP client (timedatectl set-ntp true); right where the host keeps the clock of a virtual machine"
        return [Finding("clock", Severity.WARN, f"{shown}, and the kernel says that nobody synchronises it", hint)]
    return [Finding("clock", Severity.OK, f"{shown}, synchronised" if sys.platform == "linux" else shown)]


def _unsynchronised() -> bool:
    """As adjtimex(2) tells; reading needs no rights. False where nobody tells."""
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
    """Processors' worth of time; None: no quota."""
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


def _import_path() -> list[str]:
    return [path for path in sys.path if path]
