"""How close the process is to its container's limits of memory and CPU, from Linux's control groups.

Version 2 (https://docs.kernel.org/admin-guide/cgroup-v2.html), and version 1 where it is still in use. What a kernel or container
does not report is no signal. Stalls of the whole machine are not used: on a shared one other processes cause them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

from interceptors.background import BackgroundTask

log = logging.getLogger(__name__)

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
_UNLIMITED = 1 << 60
"""Bytes. Version 1 writes "no limit" as the largest number of pages, just below 2**63."""
_HYSTERESIS = 0.03
"""Of memory: a level that begins at 85 % ends at 82 %, or it would change with every call."""

T = TypeVar("T")


class Level(IntEnum):
    """What follows for calls."""

    NONE = 0
    ELEVATED = 1
    """Smaller shares for low priorities."""
    CRITICAL = 2
    """No more calls: the kernel may kill the process for the next one."""


@dataclass(frozen=True, slots=True)
class PressureRules:
    """Shares, 0..1. CPU alone is never critical: a server that aligns on CPUs is meant to use all of them."""

    memory_elevated: float = 0.85
    """Of the memory limit, without page cache that can be dropped."""
    memory_critical: float = 0.95
    memory_some_elevated: float = 0.20
    """Of the last 10 s in which some task waited for memory."""
    memory_full_critical: float = 0.25
    """Of the last 10 s in which all tasks did: thrashing."""
    cpu_some_elevated: float = 0.95
    """Of the last 10 s in which some task waited for a CPU: nearly all, so more than the workers alone cause."""
    cpu_throttled_elevated: float = 0.80
    """Of the scheduler's periods, in which the CPU quota was used up."""


@dataclass(frozen=True, slots=True)
class PressureReading:
    """What the files report; None: nothing. Shares 0..1; `periods` and `throttled` count since the group was created."""

    memory: float | None = None
    memory_some: float | None = None
    memory_full: float | None = None
    cpu_some: float | None = None
    periods: int | None = None
    throttled: int | None = None

    @property
    def empty(self) -> bool:
        """Whether there is no signal at all."""
        return all(value is None for value in (self.memory, self.memory_some, self.memory_full, self.cpu_some, self.periods))


class Groups:
    """The files of this process's control groups. A file that is missing or not as documented is no signal.

    Nor are the stalls of the machine's root group, in which a process outside of any container or service is: all others cause
    them too.
    """

    def __init__(self, root: Path = CGROUPS, own: Path = OWN) -> None:
        paths = _own_paths(own)
        self._memory: list[Path] = []
        self._usage = ("memory.current", "memory.max", "inactive_file")
        if (root / "cgroup.controllers").exists():
            group = _place(root, paths.get("", "/"))
            self._memory = list(_ancestors(group, root))
            self._cpu = group
            self._pressure = _unless_root(group)
            return
        self._usage = ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file")
        if (root / "memory").is_dir():
            self._memory = list(_ancestors(_place(root / "memory", paths.get("memory", "/")), root / "memory"))
        cpu = next((root / name for name in ("cpu", "cpu,cpuacct") if (root / name).is_dir()), root / "cpu")
        self._cpu = _place(cpu, paths.get("cpu", "/"))
        self._pressure = _unless_root(
            _place(root / "unified", paths.get("", "/"))
        )  # systemd's hybrid layout has the stalls there

    def read(self) -> PressureReading:
        """Reads some six small files."""
        # The tightest one: the pod's limit, further up, may be lower than the container's.
        shares = [share for group in self._memory if (share := self._share(group)) is not None]
        cpu = _file(self._cpu / "cpu.stat", _table)
        return PressureReading(
            memory=max(shares, default=None),
            memory_some=self._stalled("memory", "some"),
            memory_full=self._stalled("memory", "full"),
            cpu_some=self._stalled("cpu", "some"),
            periods=cpu.get("nr_periods") if cpu else None,
            throttled=cpu.get("nr_throttled") if cpu else None,
        )

    def _stalled(self, what: str, kind: str) -> float | None:
        """Share of the last 10 s."""
        if self._pressure is None:
            return None
        return _file(self._pressure / f"{what}.pressure", lambda text: _stalled(text, kind))

    def _share(self, group: Path) -> float | None:
        usage, maximum, cache = self._usage
        limit, used = _file(group / maximum, int), _file(group / usage, int)
        if limit is None or used is None or not 0 < limit < _UNLIMITED:
            return None
        droppable = (_file(group / "memory.stat", _table) or {}).get(cache, 0)
        return max(0, used - droppable) / limit


class Pressure:
    """`level` as of the last second, from `start` to `close`. The files are read in a thread."""

    def __init__(self, groups: Groups, rules: PressureRules | None = None, every: float = 1.0) -> None:
        """`every`: seconds between readings."""
        self._groups = groups
        self._rules = rules or PressureRules()
        self._last = PressureReading()
        self._memory = Level.NONE
        self._task = BackgroundTask("reading the pressure of the control group", self._read, every=every)
        self.level = Level.NONE

    async def start(self) -> None:
        """Read once, and start to repeat it."""
        first = await asyncio.to_thread(self._groups.read)
        if first.empty:
            log.info("no control group reports memory or CPU pressure: calls are refused only by how long they wait")
        self.update(first)
        self._task.start()

    async def close(self) -> None:
        """Idempotent."""
        await self._task.close()

    def update(self, reading: PressureReading) -> None:
        """Set the level by a reading; CPU throttling counts since the one before."""
        rules, before = self._rules, self._last
        self._last = reading
        self._memory = _memory_level(reading, rules, self._memory)
        throttled = _since(before, reading)
        pressed = _over(reading.cpu_some, rules.cpu_some_elevated) or _over(throttled, rules.cpu_throttled_elevated)
        level = max(self._memory, Level.ELEVATED if pressed else Level.NONE)
        if level is not self.level:
            log.log(
                logging.WARNING if level > self.level else logging.INFO,
                "pressure %s, was %s: memory at %s of its limit, stalled %s; CPU stalled %s, throttled %s",
                level.name.lower(),
                self.level.name.lower(),
                *map(_percent, (reading.memory, reading.memory_some, reading.cpu_some, throttled)),
            )
        self.level = level

    async def _read(self) -> None:
        self.update(await asyncio.to_thread(self._groups.read))


def _memory_level(reading: PressureReading, rules: PressureRules, now: Level) -> Level:
    critical = rules.memory_critical - (_HYSTERESIS if now is Level.CRITICAL else 0)
    elevated = rules.memory_elevated - (_HYSTERESIS if now is not Level.NONE else 0)
    if _over(reading.memory, critical) or _over(reading.memory_full, rules.memory_full_critical):
        return Level.CRITICAL
    if _over(reading.memory, elevated) or _over(reading.memory_some, rules.memory_some_elevated):
        return Level.ELEVATED
    return Level.NONE


def _since(before: PressureReading, now: PressureReading) -> float | None:
    """Share of throttled periods between two readings."""
    if before.periods is None or before.throttled is None or now.periods is None or now.throttled is None:
        return None
    periods = now.periods - before.periods
    return (now.throttled - before.throttled) / periods if periods > 0 else None


def _over(value: float | None, threshold: float) -> bool:
    return value is not None and value >= threshold


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0%}"


def _file(path: Path, parse: Callable[[str], T]) -> T | None:
    try:
        return parse(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # missing, "max", or not as documented
        return None


def _table(text: str) -> dict[str, int]:
    """From lines of "NAME NUMBER"."""
    return {name: int(value) for name, _, value in (line.partition(" ") for line in text.splitlines())}


def _stalled(text: str, kind: str) -> float:
    """Share of the last 10 s, from "some avg10=1.23 avg60=... total=...". Raises ValueError."""
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == kind and words[1].startswith("avg10="):
            return float(words[1].removeprefix("avg10=")) / 100
    raise ValueError(f"no {kind} avg10")


def _own_paths(own: Path) -> dict[str, str]:
    """By controller, "" for version 2's only hierarchy."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    split = [line.split(":", 2) for line in lines]
    return {name: parts[2] for parts in split if len(parts) == 3 for name in parts[1].split(",")}


def _place(root: Path, path: str) -> Path:
    """The group's folder. In a container the path may be the host's, and the group is mounted as the root."""
    group = root / path.lstrip("/")
    return group if ".." not in group.parts and group.is_dir() else root


def _unless_root(group: Path) -> Path | None:
    """None for the machine's root group, which alone has none of these files. In a container the group at the root has them."""
    return group if any((group / name).exists() for name in ("cgroup.events", "memory.max", "cpu.max")) else None


def _ancestors(group: Path, root: Path) -> Iterator[Path]:
    while group != root:
        yield group
        group = group.parent
    yield root
