"""CPU time and memory of a tree of processes, from Linux's /proc."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SAMPLE_SECONDS = 0.1
_GONE = (FileNotFoundError, ProcessLookupError)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on: the second, the name, may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def tree(pid: int) -> list[int]:
    """`pid` and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(*_GONE):
            children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time so far, without that of children."""
    ticks = 0
    for pid in pids:
        with suppress(*_GONE):
            fields = _stat(pid)
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICK


def others_cpu_seconds() -> float:
    """CPU time of everything on the machine but this process and its children, stolen time included."""
    names = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = map(int, names)
    mine = os.times()
    dead = mine.children_user + mine.children_system
    ours = cpu_seconds(tree(os.getpid())) + dead
    return (user + nice + system + interrupts + soft_interrupts + stolen) / _TICK - ours


@dataclass(frozen=True, slots=True)
class Memory:
    """MB. `pss` counts a page shared by n processes 1/n in each; `rss` counts it in all of them.

    Root alone can tell the `pss` of a server and its workers, as they are undumpable: for others it is their `rss`.
    """

    pss: float
    rss: float


def memory(pids: Iterable[int]) -> Memory:
    pss = rss = 0
    for pid in pids:
        with suppress(*_GONE):
            resident = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
            rss += resident
            pss += _shared_out(pid, resident)
    return Memory(pss / 1e6, rss / 1e6)


def _shared_out(pid: int, resident: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except PermissionError:
        return resident
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024


@contextmanager
def watched(pid: int) -> Iterator[list[Memory]]:
    """Samples of a tree's memory while the block runs; the last one holds the peak of each figure."""
    seen: list[Memory] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(_SAMPLE_SECONDS):
            seen.append(memory(tree(pid)))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
        seen.append(memory(tree(pid)))
        seen.append(Memory(max(s.pss for s in seen), max(s.rss for s in seen)))
