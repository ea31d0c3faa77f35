"""Whose CPU a call through Ray takes: of the engine's processes, the server, its Ray client, the replicas, and Ray itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.processes import cpu_seconds

ENGINE, SERVER, CLIENT, REPLICAS, RAY = "engine's processes", "server", "its Ray client", "replicas", "Ray itself"


class Cpu:
    """Seconds so far of processes that live on, by what they are."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._by_pid = {pid: cpu_seconds([pid]) for pid in pids}

    def since(self, before: Cpu) -> Mapping[str, float]:
        """Seconds by kind."""
        found: dict[str, float] = {}
        for pid, seconds in self._by_pid.items():
            if (kind := _kind(pid)) is not None:
                found[kind] = found.get(kind, 0.0) + seconds - before._by_pid.get(pid, 0.0)
        return found


def _kind(pid: int) -> str | None:
    """None for a process that has ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return None
    if words[0].startswith("ray::ServeReplica"):
        return REPLICAS
    module = words[words.index("-m") + 1] if "-m" in words else ""
    if module.startswith("bench."):
        return SERVER
    if module == "aligner_svc.engines.ray_serve.client":
        return CLIENT
    return ENGINE if module.startswith("aligner_svc.engines.pocketsphinx.") else RAY
