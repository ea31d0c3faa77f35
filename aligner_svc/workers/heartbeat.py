"""Finds children that hang, from outside: a child may hold its interpreter lock for seconds, in which it could answer no ping.

Linux only. Where there is no /proc a child that hangs is found by the timeout of its call.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aligner_svc.workers.process import WorkerProcess

EVERY: Final = 0.5
"""Seconds between two readings; one takes 0.03 ms a child."""

_STOPPED_READINGS: Final = 2
"""In a row, which make a child hung: after 0.5 to 1 s."""

_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Reading:
    """`state`: the kernel's letter. `ticks`: processor time of all threads. `progress` changes when the process does anything."""

    state: str
    ticks: int
    progress: tuple[int, ...]


def read(pid: int) -> Reading | None:
    """From /proc/PID/stat (proc_pid_stat(5)). None where there is none, and for a process that has been reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()
        # Page faults too: a process that is swapped in has no processor time, and makes progress.
        minor, major, user, system = (int(fields[number]) for number in (7, 9, 11, 12))
        return Reading(fields[0], user + system, (minor, major, user, system))
    except (OSError, ValueError, IndexError):
        return None


def cpu_seconds(pid: int) -> float | None:
    """Processor time of a running process so far; None: unknown."""
    reading = read(pid)
    return None if reading is None else reading.ticks / _TICKS


class Pulse:
    """What the readings of one child say."""

    def __init__(self, pid: int) -> None:
        self.stopped = 0
        """Readings in a row that found it stopped, by a signal or a debugger."""
        self._pid = pid
        self._still = 0
        self._last: tuple[int, tuple[int, ...]] | None = None

    def beat(self, call: int, still_limit: int | None, *, late: bool) -> str:
        """Take a reading; why the child hangs, "" if it does not.

        `call`: the number of the call that it is at, 0 if it is idle. `still_limit`: readings in a row without progress
        that make a child hung which is at a call, or in uninterruptible sleep. A *runnable* one that gets no processor
        time does not hang. `late`: this process was held up, and with it maybe the child, which waits for it.
        """
        reading = read(self._pid)
        if reading is None:
            return ""
        self.stopped = self.stopped + 1 if reading.state in {"T", "t"} else 0
        if self.stopped >= _STOPPED_READINGS:
            return "stopped"
        now = (call, reading.progress)
        waits = reading.state == "D" or (call != 0 and reading.state != "R")
        self._still = self._still + 1 if waits and now == self._last and not late else 0
        self._last = now
        if still_limit is not None and self._still >= still_limit:
            return f"no progress for {self._still * EVERY:g} s in state {reading.state}"
        return ""


async def keep_watch(
    children: Callable[[], Iterable[WorkerProcess]], on_hung: Callable[[WorkerProcess, str], object], hung_after: float | None
) -> None:
    """Take readings of the `children` until cancelled; `on_hung` is called with one that hangs, and why.

    `hung_after`: seconds that a child may be at a call without using the processor; None: any.
    """
    clock = asyncio.get_running_loop().time
    still_limit = None if hung_after is None else max(1, round(hung_after / EVERY))
    last = clock()
    while True:
        await asyncio.sleep(EVERY)
        late, last = clock() - last > 2 * EVERY, clock()
        for child in list(children()):
            # One that starts reads files, and may have to wait for the disk.
            why = child.pulse.beat(child.call, still_limit if child.ready_at else None, late=late)
            if why:
                on_hung(child, why)
