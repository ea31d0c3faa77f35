"""Several gateways on one port: starts them, replaces those that end or hang, drains them, and speaks for all of them."""

from __future__ import annotations

import asyncio
import logging
import pickle
import signal
import socket
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from aligner_svc.config import Settings
from aligner_svc.errors import StartError
from aligner_svc.processes.counts import SharedCounts
from aligner_svc.processes.duplex import Duplex, Handler, NoAnswerError
from aligner_svc.processes.readiness import readiness_of_all
from aligner_svc.processes.shares import share
from aligner_svc.processes.signals import handle
from aligner_svc.telemetry.logs.pipeline import open_logs
from aligner_svc.telemetry.logs.stacks import log_stacks
from aligner_svc.telemetry.metrics.merged import MergedPages
from aligner_svc.telemetry.metrics.server import MetricsServer
from aligner_svc.transport.bind import describe, parse, reserve
from aligner_svc.workers import forbid_core_dumps
from interceptors.background import BackgroundTask, Tasks

log = logging.getLogger(__name__)

_PING_EVERY: Final = 1.0
_PING_TIMEOUT: Final = 15.0
"""Seconds after which a gateway that does not answer is killed: what holds up an event loop takes milliseconds."""
_SCRAPE_TIMEOUT: Final = 5.0
_PAUSES: Final = (0.1, 10.0)
"""Seconds before a gateway that ended is replaced: the first time, and at most."""
_SETTLED: Final = 60.0
"""Seconds that a gateway has to run for its next end to count as the first again."""
_STOP_SLACK: Final = 15.0
"""Seconds beyond the drain after which a gateway is killed: 2 s of refusing, 3 s to close, and a busy machine."""
_MAX_BLOCKS: Final = 1000
"""Blocked addresses that a process learns of when it starts, the latest."""


async def supervise(settings: Settings) -> int:
    """Run the server's processes until a signal ends them; the exit status."""
    forbid_core_dumps()
    logs = open_logs(settings.logs.format, settings.logs.level, key_prefixes=(settings.keys.prefix,))
    try:
        supervisor = Supervisor(settings)
        handle(end=supervisor.end, reload=supervisor.reload, dump=supervisor.dump)
        return await supervisor.run()
    except StartError as error:
        log.error("%s", error)
        return 1
    finally:
        logs.close()


@dataclass(eq=False)
class _Member:
    """A gateway. `number`: its place among them, from 1; `serial`: of all that were ever started."""

    number: int
    serial: int
    process: asyncio.subprocess.Process
    link: Duplex
    started: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it has loaded everything and taken the port."""
    why_not: str | None = "it is starting"
    """Why it is NOT_SERVING by itself; None: it is SERVING."""


class Supervisor:
    """`run` once. It loads no engine and takes no calls."""

    def __init__(self, settings: Settings) -> None:
        """Takes the ports. Raises StartError."""
        port, address = reserve(settings.server.listen, settings)
        self._ports, self._reached = [port], describe(address, settings)
        update: dict[str, object] = {"server": settings.server.model_copy(update={"listen": str(address)})}
        if settings.http.listen is not None:
            port, http = reserve(settings.http.listen, settings)
            self._ports.append(port)
            update["http"] = settings.http.model_copy(update={"listen": str(http)})
            self._reached += f", HTTP on {http}"
        self._settings = settings.model_copy(update=update)
        self._count = settings.server.processes
        self._enough = (self._count + 1) // 2
        self.members: dict[int, _Member] = {}
        """By their serial numbers."""
        self._serials = 0
        self._restarts = 0
        self._too_few: str | None = None
        self._counts = SharedCounts()
        self._blocks: deque[tuple[float, tuple[Any, ...]]] = deque(maxlen=_MAX_BLOCKS)
        """When they began, for processes that start later."""
        self._page = MergedPages(self._refresh, lambda: (self._up, self._count, self._restarts))
        self._stopping, self._hurry = asyncio.Event(), asyncio.Event()
        self._failed = self._was_ready = False
        self._tasks = Tasks()
        self._watch = BackgroundTask("watching whether the server's processes answer", self._ping_all, every=_PING_EVERY)

    @property
    def _up(self) -> int:
        return sum(member.why_not is None for member in self.members.values())

    async def run(self) -> int:
        """The exit status. Raises StartError."""
        metrics = self._metrics_server()
        if metrics is not None:
            await metrics.start()
        self._watch.start()
        kept = asyncio.gather(*(self._keep(number) for number in range(1, self._count + 1)))
        try:
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait((kept, stopping), return_when=asyncio.FIRST_COMPLETED)
            await self._stop(kept)
        finally:
            await self._watch.close()
            if metrics is not None:
                await metrics.close()
            for port in self._ports:
                port.close()
        return 1 if self._failed else 0

    def end(self) -> None:
        """Drain; the second time, do not wait."""
        (self._hurry if self._stopping.is_set() else self._stopping).set()

    def reload(self) -> None:
        """Have every gateway read its files again."""
        self._tell("reload")

    def dump(self) -> None:
        """Log what every thread and task of this process and of the gateways is doing."""
        log_stacks()
        self._tell("dump")

    def _metrics_server(self) -> MetricsServer | None:
        if self._settings.metrics.listen is None:
            return None
        address = parse(self._settings.metrics.listen)
        return MetricsServer(self._page, address.host, address.port, readiness=self._readiness)

    def _tell(self, name: str, *arguments: object) -> None:
        for member in self.members.values():
            member.link.tell(name, *arguments)

    def handlers(self, serial: int) -> dict[str, Handler]:
        """What a gateway may ask and tell."""
        own = {"state": partial(self._on_state, serial), "blocked": partial(self._on_block, serial)}
        return {**self._counts.of(serial), **own}

    async def _keep(self, number: int) -> None:
        """Have one gateway run, again and again, until the server stops."""
        loop, pause = asyncio.get_running_loop(), _PAUSES[0]
        while not self._stopping.is_set():
            began = loop.time()
            try:
                member = await self._start(number)
            except OSError as error:  # no process, no memory or no descriptor to be had
                log.error("process %d of %d cannot be started: %s", number, self._count, error.strerror)
                pause = await self._wait(pause)
                continue
            if self._stopping.is_set():  # meanwhile
                member.link.tell("stop")
            status = await self._ended(member)
            if self._stopping.is_set():
                self._failed |= status != 0
                return
            if not self._was_ready:  # it has logged why
                self._failed = True
                self._stopping.set()
                return
            self._restarts += 1
            pause = _PAUSES[0] if loop.time() - began > _SETTLED else pause
            log.error("process %d of %d ended with status %d, next try in %g s", number, self._count, status, pause)
            pause = await self._wait(pause)

    async def _wait(self, pause: float) -> float:
        """Until the next try, or the stop; the pause after that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._stopping.wait()
        return min(2 * pause, _PAUSES[1])

    async def _start(self, number: int) -> _Member:
        self._serials += 1
        serial = self._serials
        mine, theirs = socket.socketpair()
        link = Duplex(self.handlers(serial))
        await link.open(mine)
        with theirs:
            # A process group of its own: signals of a terminal reach this process only, which drains it.
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "aligner_svc.processes.gateway", str(theirs.fileno())),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                process_group=0,
            )
        member = self.members[serial] = _Member(number, serial, process, link)
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(share(self._settings, self._count, number - 1)))
        process.stdin.close()
        return member

    async def _ended(self, member: _Member) -> int:
        """Wait for its end, and forget it; its exit status."""
        status = await member.process.wait()
        member.link.close()
        del self.members[member.serial]
        await self._counts.forget(member.serial)
        self._page.ended(member.serial)
        self._decide()
        return status

    async def _on_state(self, serial: int, why_not: str | None) -> None:
        member = self.members.get(serial)
        if member is None:
            return
        if not member.started.is_set():
            member.started.set()
            self._tell_blocks(member)
        member.why_not = why_not
        self._decide()
        member.link.tell("siblings", self._too_few)  # one that was just started does not know
        if not self._was_ready and sum(one.started.is_set() for one in self.members.values()) == self._count:
            self._was_ready = True
            print(f"aligner-svc ready on {self._reached}", flush=True)

    async def _on_block(self, serial: int, *block: Any) -> None:
        """The other processes block what one of them has blocked."""
        self._blocks.append((asyncio.get_running_loop().time(), block))
        for other in self.members.values():
            if other.serial != serial:
                other.link.tell("block", *block)

    def _tell_blocks(self, member: _Member) -> None:
        now = asyncio.get_running_loop().time()
        for at, (peer, label, level, seconds) in self._blocks:
            member.link.tell("block", peer, label, level, seconds - (now - at))

    def _decide(self) -> None:
        up = self._up
        too_few = f"only {up} of its {self._count} processes serve" if up < self._enough else None
        if too_few != self._too_few:
            self._too_few = too_few
            self._tell("siblings", too_few)

    async def _stop(self, ended: asyncio.Future[Any]) -> None:
        """Drain all of them, until they have `ended`."""
        self._tell("stop")
        hurry = asyncio.create_task(self._hurry.wait())
        drain = self._settings.server.drain_delay + self._settings.server.drain_grace + _STOP_SLACK
        await asyncio.wait((ended, hurry), timeout=drain, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not ended.done():
            self._tell("hurry")
            await asyncio.wait((ended,), timeout=_STOP_SLACK)
        if not ended.done():
            log.error("%d processes do not end, killing them", len(self.members))
            self._kill(self.members.values())
        await ended

    def _kill(self, members: Iterable[_Member]) -> None:
        for member in list(members):
            with suppress(ProcessLookupError):
                member.process.send_signal(signal.SIGKILL)

    async def _ping_all(self) -> None:
        await asyncio.gather(*(self._ping(member) for member in self.members.values() if member.started.is_set()))

    async def _ping(self, member: _Member) -> None:
        try:
            await member.link.ask("ping", seconds=_PING_TIMEOUT)
        except NoAnswerError:
            if member.serial in self.members and not member.link.closed.is_set():
                log.error("process %d of %d does not answer for %g s, killing it", member.number, self._count, _PING_TIMEOUT)
                self._kill([member])

    async def _asked(self, name: str) -> Iterator[tuple[_Member, Any]]:
        """The answers of those that answer."""
        members = [member for member in self.members.values() if member.started.is_set()]
        asked = (member.link.ask(name, seconds=_SCRAPE_TIMEOUT) for member in members)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return ((member, answer) for member, answer in zip(members, answers, strict=True) if isinstance(answer, list))

    async def _refresh(self) -> None:
        for member, page in await self._asked("metrics"):
            self._page.take(member.serial, page)

    async def _readiness(self) -> tuple[bool, str]:
        ready = self._too_few is None and self._was_ready and not self._stopping.is_set()
        answers = [(member.number, findings) for member, findings in await self._asked("readiness")]
        return ready, readiness_of_all(ready, self._up, self._count, answers)
