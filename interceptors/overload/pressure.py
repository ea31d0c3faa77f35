"""How hard the container's limits press: memory and CPU, as Linux's control groups tell.

Version 2 (https://docs.kernel.org/admin-guide/cgroup-v2.html) and, where a machine still has it, version 1. What a kernel or
a container does not show is no signal; a machine without limits has none to press, and stalls of the whole machine are not
looked at: on a shared one they are others' doing.
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
"""Bytes. Version 1 says "no limit" with the largest number of pages there is, just below 2**63."""
_HYSTERESIS = 0.03
"""Of memory: a level that begins at 85 % ends at 82 %, or it would come and go with every call."""

T = TypeVar("T")


class Level(IntEnum):
    """What is to be done about it."""

    NONE = 0
    ELEVATED = 1
    """Less for low priorities."""
    CRITICAL = 2
    """Nothing more: the next call may be the one the kernel kills the process for."""


@dataclass(frozen=True, slots=True)
class PressureRules:
    """Shares, 0..1. CPU alone never is critical: a server that aligns on CPUs is meant to use all of them."""

    memory_elevated: float = 0.85
    """Of the memory limit, page cache that can be dropped not counted."""
    memory_critical: float = 0.95
    memory_some_elevated: float = 0.20
    """Of the last 10 s, in which some task waited for memory."""
    memory_full_critical: float = 0.25
    """In which all of them did: thrashing."""
    cpu_some_elevated: float = 0.95
    """In which some task waited for a CPU: nearly always, so more than the workers alone account for."""
    cpu_throttled_elevated: float = 0.80
    """Of the scheduler's periods, those in which the CPU quota was used up before their end."""


@dataclass(frozen=True, slots=True)
class PressureReading:
    """What the files say; None: nothing. Shares 0..1; `periods` and `throttled` count from the group's beginning."""

    memory: float | None = None
    memory_some: float | None = None
    memory_full: float | None = None
    cpu_some: float | None = None
    periods: int | None = None
    throttled: int | None = None

    @property
    def silent(self) -> bool:
        """Whether there is no signal at all."""
        return all(value is None for value in (self.memory, self.memory_some, self.memory_full, self.cpu_some, self.periods))


class Groups:
    """The files of this process's groups. A file that is absent or not as documented is no signal."""

    def __init__(self, root: Path = CGROUPS, own: Path = OWN) -> None:
        paths = _own_paths(own)
        self._memory: list[Path] = []
        self._usage = ("memory.current", "memory.max", "inactive_file")
        if (root / "cgroup.controllers").exists():
            group = _place(root, paths.get("", "/"))
            self._memory = list(_ancestors(group, root))
            self._pressure = self._cpu = group
            return
        self._usage = ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file")
        if (root / "memory").is_dir():
            self._memory = list(_ancestors(_place(root / "memory", paths.get("memory", "/")), root / "memory"))
        cpu = next((root / name for name in ("cpu", "cpu,cpuacct") if (root / name).is_dir()), root / "cpu")
        self._cpu = _place(cpu, paths.get("cpu", "/"))
        self._pressure = _place(root / "unified", paths.get("", "/"))  # systemd's hybrid layout has stalls here

    def read(self) -> PressureReading:
        """How things stand. Reads some six small files."""
        # The tightest counts: a pod's limit may stand above the container's own.
        shares = [share for group in self._memory if (share := self._share(group)) is not None]
        cpu = _file(self._cpu / "cpu.stat", _table)
        return PressureReading(
            memory=max(shares, default=None),
            memory_some=_file(self._pressure / "memory.pressure", lambda text: _stalled(text, "some")),
            memory_full=_file(self._pressure / "memory.pressure", lambda text: _stalled(text, "full")),
            cpu_some=_file(self._pressure / "cpu.pressure", lambda text: _stalled(text, "some")),
            periods=cpu.get("nr_periods") if cpu else None,
            throttled=cpu.get("nr_throttled") if cpu else None,
        )

    def _share(self, group: Path) -> float | None:
        usage, most, cache = self._usage
        limit, used = _file(group / most, int), _file(group / usage, int)
        if limit is None or used is None or not 0 < limit < _UNLIMITED:
            return None
        droppable = (_file(group / "memory.stat", _table) or {}).get(cache, 0)
        return max(0, used - droppable) / limit


class Pressure:
    """`level` as of the last second. `start` before it is asked, `close` after; between them it reads in a thread."""

    def __init__(self, groups: Groups, rules: PressureRules | None = None, every: float = 1.0) -> None:
        """`every`: seconds between two readings."""
        self._groups = groups
        self._rules = rules or PressureRules()
        self._last = PressureReading()
        self._memory = Level.NONE
        self._task = BackgroundTask("reading the pressure of the control group", self._read, every=every)
        self.level = Level.NONE

    async def start(self) -> None:
        """Read once, and then again and again."""
        first = await asyncio.to_thread(self._groups.read)
        if first.silent:
            log.info("no control group tells of memory or CPU pressure: calls are shed by their waiting alone")
        self.take(first)
        self._task.start()

    async def close(self) -> None:
        """Idempotent."""
        await self._task.close()

    def take(self, reading: PressureReading) -> None:
        """Judge a reading; CPU throttling by what has come since the one before."""
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
        self.take(await asyncio.to_thread(self._groups.read))


def _memory_level(reading: PressureReading, rules: PressureRules, now: Level) -> Level:
    critical = rules.memory_critical - (_HYSTERESIS if now is Level.CRITICAL else 0)
    elevated = rules.memory_elevated - (_HYSTERESIS if now is not Level.NONE else 0)
    if _over(reading.memory, critical) or _over(reading.memory_full, rules.memory_full_critical):
        return Level.CRITICAL
    if _over(reading.memory, elevated) or _over(reading.memory_some, rules.memory_some_elevated):
        return Level.ELEVATED
    return Level.NONE


def _since(before: PressureReading, now: PressureReading) -> float | None:
    """Share of the scheduler's periods between two readings that were throttled."""
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
    except (OSError, ValueError):  # absent, "max", or something else than documented
        return None


def _table(text: str) -> dict[str, int]:
    """Lines of "name number"."""
    return {name: int(value) for name, _, value in (line.partition(" ") for line in text.splitlines())}


def _stalled(text: str, kind: str) -> float:
    """Share of the last 10 s, of "some avg10=1.23 avg60=... total=...". Raises ValueError."""
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == kind and words[1].startswith("avg10="):
            return float(words[1].removeprefix("avg10=")) / 100
    raise ValueError(f"no {kind} avg10")


def _own_paths(own: Path) -> dict[str, str]:
    """Of every controller of this process, "" for version 2's one hierarchy."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    split = [line.split(":", 2) for line in lines]
    return {name: parts[2] for parts in split if len(parts) == 3 for name in parts[1].split(",")}


def _place(root: Path, path: str) -> Path:
    """The group's folder. In a container the path may be the host's, and the group is what is mounted as the root."""
    group = root / path.lstrip("/")
    return group if ".." not in group.parts and group.is_dir() else root


def _ancestors(group: Path, root: Path) -> Iterator[Path]:
    while group != root:
        yield group
        group = group.parent
    yield root
