"""Does the faults one after the other, and tells what became of the calls."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.drain import drain
from tests.chaos.faults import Fault
from tests.chaos.load import Call, Load, load
from tests.chaos.site import Site, site
from tests.kit.servers import gone

RECOVERY: Final = 3.0
"""Seconds from the fault, or from its mending, until no call is refused any more."""
_QUIET: Final = 2.0
"""Seconds in which every call must be answered for the service to have recovered."""
_ANSWERED: Final = 8
"""Calls that must have begun and been answered by then: on a busy machine few end in that time."""
_PATIENCE: Final = 30.0


@dataclass(frozen=True)
class Row:
    """Of the table. `recovery`: seconds; `bad`: good files called bad."""

    fault: str
    calls: int
    lost: int
    bad: int
    refused: int
    recovery: float
    wrong: Sequence[str]
    """What the goals do not allow."""


def _row(fault: Fault, calls: Sequence[Call], since: float) -> Row:
    """`since`: monotonic seconds at which it was struck, or mended."""
    last = max((call.ended for call in calls if not call.fine), default=since)
    recovery = max(0.0, last - since)
    lost = [call for call in calls if call.lost]
    bad = [call for call in calls if call.answer.code == "INVALID_ARGUMENT"]
    refused = [call for call in calls if not call.fine and not call.lost]
    wrong = [f"lost: {call.answer.code} {call.answer.reason} {call.answer.message[:80]}" for call in lost]
    wrong += [f"a good file called bad: {call.answer.reason}" for call in bad]
    if refused and not fault.refuses:
        wrong.append(f"refused: {dict(Counter(call.answer.reason for call in refused))}")
    if recovery > RECOVERY:
        wrong.append(f"recovered after {recovery:.1f} s: {dict(Counter(call.answer.reason for call in refused))}")
    return Row(fault.name, len(calls), len(lost), len(bad), len(refused), recovery, wrong)


@dataclass
class Report:
    """`faults`: what else was wrong at the end."""

    rows: list[Row]
    faults: list[str]

    @property
    def wrong(self) -> list[str]:
        return [f"{row.fault}: {one}" for row in self.rows for one in row.wrong] + self.faults

    def table(self) -> str:
        lines = [f"{'fault':<26}{'calls':>8}{'lost':>8}{'bad':>8}{'refused':>9}{'recovery s':>12}"]
        lines += [
            f"{row.fault:<26}{row.calls:>8}{row.lost:>8}{row.bad:>8}{row.refused:>9}{row.recovery:>12.1f}" for row in self.rows
        ]
        return "\n".join(lines)


async def chaos(faults: Sequence[Fault], drains: int, kills: int = 0, pause: float = 0.05) -> Report:
    """The faults, then so many servers that are drained, and that are killed, beside another one. `pause` as in `load`."""
    report = Report([], [])
    async with site() as at:
        async with load(at, pause) as found:
            for fault in faults:
                report.rows.append(await _tried(at, fault, found))
        workers = at.command_children()
        report.faults += _left_behind(at)
        at.server.command.process.terminate()
        if await at.server.command.exit_code() != 0:
            report.faults.append("the server did not end with status 0")
        await gone(workers)
        report.faults += [f"in the log: {line[:300]}" for line in at.server.command.log.splitlines() if "Traceback" in line]
    for number, count in ((signal.SIGTERM, drains), (signal.SIGKILL, kills)):
        if not count:
            continue
        done = await drain(count, number)
        wrong = [f"lost: {count} {reason}" for reason, count in done.lost.items()]
        wrong += [f"a server ended with status {status}" for status in done.exits if status]
        report.rows.append(Row(f"{number.name}, {done.count} servers", done.calls, done.lost.total(), 0, 0, 0.0, wrong))
    return report


async def _tried(at: Site, fault: Fault, found: Load) -> Row:
    began = time.monotonic()
    await fault.strike(at)
    since = time.monotonic()
    if fault.mend is not None:
        await asyncio.sleep(fault.seconds)
        since = time.monotonic()
        await fault.mend(at)
    await _recovered(found, since + fault.seconds / 4)
    return _row(fault, found.since(began), since)


async def _recovered(found: Load, after: float) -> None:
    """Until calls are answered, and none is refused, for a while; no longer than `_PATIENCE` s."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        await asyncio.sleep(0.2)
        now = time.monotonic()
        failed = max((call.ended for call in found.calls if not call.fine), default=after)
        answered = sum(call.fine and call.began > max(failed, after) for call in found.calls)
        if now > max(failed, after) + _QUIET and answered >= _ANSWERED:
            return


def _left_behind(at: Site) -> list[str]:
    """Files beside the log, and processes that are no workers."""
    files = [str(path.relative_to(at.scratch)) for path in at.scratch.rglob("*") if path.is_file() and path.name != "server.log"]
    stopped = [pid for pid in at.command_children() if _state(pid) in "TtZ"]
    found = [f"left behind: {name}" for name in files]
    return found + [f"process {pid} is stopped or a zombie" for pid in stopped]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return "X"
