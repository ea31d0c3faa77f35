"""Starts the servers, tries the attacks, and tells what came of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.attack.arena import ALIGN, Arena, Attack, Kind, align, held, unary
from tests.attack.watch import Watch, watching
from tests.kit.clamd_server import ClamdServer, running_clamd
from tests.kit.guarded import Home
from tests.kit.prod_process import prod_process

MAX_HEALTH_MS, MAX_MEMORY_MB = 1000.0, 150.0
_UPLOAD_BYTES = 12 << 20
"""The largest upload: clamd has to take it, and the servers check at their start that it does."""


def _aligned(cells: Sequence[str]) -> str:
    return f"{cells[0]:<28}" + "".join(f"{cell:>14}" for cell in cells[1:])


@dataclass(frozen=True)
class Row:
    """Of the table. `slowest_ms`: the longest health answer; `peak_mb`: memory over idle.

    `refused`, `p95_ms`: of the well-behaved caller's calls meanwhile.
    """

    kind: str
    tried: int
    through: list[str]
    seconds: float
    slowest_ms: float = 0.0
    peak_mb: float = 0.0
    refused: tuple[str, ...] = ()
    p95_ms: float = 0.0
    unhealthy: tuple[str, ...] = ()

    def __str__(self) -> str:
        return _aligned(self.cells)

    @property
    def cells(self) -> Sequence[str]:
        figures = (
            f"{self.seconds:.1f}",
            f"{self.slowest_ms:.0f}",
            f"{self.peak_mb:.0f}",
            str(len(self.refused)),
            f"{self.p95_ms:.0f}",
        )
        return (self.kind, str(self.tried), str(len(self.through)), *figures)


@dataclass
class Report:
    """Of a whole run. `faults`: what else the servers did wrong, such as a traceback in a log."""

    rows: list[Row]
    faults: list[str]

    @property
    def through(self) -> list[str]:
        return [f"{row.kind}: {one}" for row in self.rows for one in row.through]

    @property
    def missed(self) -> list[str]:
        """The goals that were not reached."""
        missed = []
        for row in self.rows:
            if row.slowest_ms > MAX_HEALTH_MS:
                missed.append(f"{row.kind}: a health answer took {row.slowest_ms:.0f} ms")
            if row.peak_mb > MAX_MEMORY_MB:
                missed.append(f"{row.kind}: {row.peak_mb:.0f} MB over idle")
            if row.refused:
                missed.append(f"{row.kind}: a well-behaved caller was refused: {dict(Counter(row.refused))}")
            if row.unhealthy:
                missed.append(f"{row.kind}: health answered {dict(Counter(row.unhealthy))}")
        return missed

    def total(self) -> Row:
        """The sums, and the worst of what has no sum."""
        tried, seconds = sum(row.tried for row in self.rows), sum(row.seconds for row in self.rows)
        worst = (max((row.slowest_ms for row in self.rows), default=0), max((row.peak_mb for row in self.rows), default=0))
        refused, p95 = sum((row.refused for row in self.rows), ()), max((row.p95_ms for row in self.rows), default=0)
        return Row("all", tried, self.through, seconds, *worst, refused, p95)


HEADS = _aligned(("kind", "tried", "through", "s", "health ms", "MB over idle", "refused", "p95 ms"))


@asynccontextmanager
async def arena() -> AsyncIterator[Arena]:
    """Two servers, and a clamd if the machine has one."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aligner-attack-")))
        clamd: ClamdServer | None = None
        with contextlib.suppress(pytest.skip.Exception):
            clamd = stack.enter_context(running_clamd(stream_max_bytes=_UPLOAD_BYTES))
        servers = []
        for name, mtls in (("plain", False), ("mtls", True)):
            for part in ("home", "scratch"):
                (folder / name / part).mkdir(parents=True)
            home = Home(folder / name / "home", mtls=mtls)
            settings = {"LIMITS__STREAM_AUDIO_BYTES": _UPLOAD_BYTES, "LIMITS__AUDIO_SECONDS": 60}
            if clamd is not None and not mtls:
                settings |= {"ANTIVIRUS__ADDRESS": clamd.unix, "ANTIVIRUS__STREAM_MAX_BYTES": _UPLOAD_BYTES}
            servers.append(await stack.enter_async_context(prod_process(home, folder / name / "scratch", **settings)))
        plain, mtls_server = servers
        key = await plain.home.new_key("align")
        channel = await stack.enter_async_context(plain.channel())
        mtls_channel = await stack.enter_async_context(mtls_server.channel())
        running = Arena(plain, mtls_server, clamd, key, channel, mtls_channel)
        for _ in range(3):  # what a first call loads belongs to the idle server
            assert await serves(running) == ""
        yield running


async def serves(running: Arena) -> str:
    """Return "" if both servers align a recording for a caller that they know."""
    for channel in (running.channel, running.mtls_channel):
        found = await unary(channel, ALIGN, align(), running.token)
        if found.code != "OK":
            return held(found) or found.code
    return ""


def unexpected(log: str) -> list[str]:
    """What a log has of errors that nobody thought of: logger, event and the end of the traceback."""
    found = []
    for line in log.splitlines():
        if "Traceback" in line:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"event": line}
            found.append(f"{entry.get('logger')}: {entry.get('event')} {entry.get('exception', '')[-150:]!r}")
        elif "was never retrieved" in line or "Task was destroyed" in line:
            found.append(line)
    return found


async def attack(
    running: Arena, kinds: Sequence[Kind], *, short: bool, shown: Callable[[Row], object] = lambda row: None
) -> Report:
    """Try the kinds one after the other. `shown` gets each row of the table when it is known."""
    servers = (running.plain, running.mtls)
    key = running.plain.home.folder / "probe.key"
    key.write_text(running.key.reveal(), encoding="ascii")
    rows: list[Row] = []
    async with watching(running.plain, key, servers) as watch:
        for kind in kinds:
            rows.append(await _tried(running, kind, watch, short=short))
            shown(rows[-1])
    faults = [f"{server.home.folder} has ended" for server in servers if not server.alive]
    errors = Counter(line[:300] for server in servers for line in unexpected(server.command.log))
    faults += [f"in the log, {count} times: {line}" for line, count in errors.items()]
    return Report(rows, faults)


async def _tried(running: Arena, kind: Kind, watch: Watch, *, short: bool) -> Row:
    if kind.needs_clamd and running.clamd is None:
        return Row(f"{kind.name} (no clamd)", 0, [], 0.0)
    chosen = list(kind.attacks())
    if short:
        chosen = chosen[:: max(1, len(chosen) // kind.short)]
    began, room = time.monotonic(), asyncio.Semaphore(kind.at_once)
    tried, through = list[Attack](), list[str]()

    async def run(one: Attack) -> None:
        async with room:
            if time.monotonic() - began > kind.seconds:
                return
            tried.append(one)
            try:
                what = await one.run(running)
            except (Exception, asyncio.CancelledError) as error:
                what = f"not carried out: {type(error).__name__}: {error}"
        if what:
            through.append(f"{one.name}: {what}")

    await asyncio.gather(*(run(one) for one in chosen))
    if (broken := await serves(running)) != "":
        through.append(f"a good call afterwards: {broken}")
    took = time.monotonic() - began
    figures = (
        watch.slowest(began),
        watch.peak(began),
        tuple(watch.refused(began)),
        watch.p95(began),
        tuple(watch.unhealthy(began)),
    )
    return Row(kind.name, len(tried), through, took, *figures)
