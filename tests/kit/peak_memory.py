"""The most memory a process ever had, from Linux's /proc."""

from __future__ import annotations

from pathlib import Path


def peak_memory(pid: int) -> int:
    """Bytes resident, libraries and shared pages included."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:"))
