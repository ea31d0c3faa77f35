"""Runs the clients against a server, and tells what was unexpected and what grew."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.attack.arena import Answer
from tests.kit.guarded import Home, bearer
from tests.kit.prod_process import ProdProcess, prod_process
from tests.soak.clients import ROLES, Role, Site
from tests.soak.growth import Sampler, Use

_UPLOAD_BYTES = 12 << 20


@dataclass(frozen=True)
class Report:
    """`ended`: calls by role and how they ended. `since`: monotonic seconds from which on growth is judged."""

    ended: dict[str, Counter[str]]
    unexpected: list[str]
    figures: Sequence[Use]
    since: float
    faults: list[str]

    @property
    def grown(self) -> list[str]:
        return [
            f"{use.name} grew by {use.growth(self.since):.1f}, with noise of {use.noise(self.since):.1f}"
            for use in self.figures
            if use.grows(self.since)
        ]

    def table(self) -> str:
        lines = [f"{'clients':<14}{'calls':>8}  how they ended"]
        for name, ended in self.ended.items():
            how = ", ".join(f"{count} {what}" for what, count in ended.most_common())
            lines.append(f"{name:<14}{ended.total():>8}  {how}")
        lines.append(f"\n{'server':<14}{'first':>8}{'last':>8}{'growth':>8}{'noise':>8}")
        for use in self.figures:
            seen = use.settled(self.since)
            row = (seen[0][1], seen[-1][1], use.growth(self.since), use.noise(self.since)) if seen else (0.0, 0.0, 0.0, 0.0)
            lines.append(f"{use.name:<14}" + "".join(f"{value:>8.1f}" for value in row))
        return "\n".join(lines)


async def soak(seconds: float, roles: Sequence[Role] = ROLES) -> Report:
    """Of the time the first quarter, a minute at most, is for warming up: pools fill, allocators settle."""
    limits = {"LIMITS__STREAM_AUDIO_BYTES": _UPLOAD_BYTES, "LIMITS__AUDIO_SECONDS": 60}
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as scratch:
        async with prod_process(Home(Path(home), mtls=False), Path(scratch), **limits) as server:
            return await _run(server, seconds, roles)


async def _run(server: ProdProcess, seconds: float, roles: Sequence[Role]) -> Report:
    forge = server.home.forge
    sampler = Sampler(server.pid)
    ended: dict[str, Counter[str]] = {role.name: Counter() for role in roles}
    unexpected: list[str] = []
    began = time.monotonic()
    end, since = began + seconds, began + min(60.0, seconds / 4)

    async def client(role: Role, number: int) -> None:
        draw = random.Random(f"{role.name} {number}")
        site = Site(server, lambda: bearer(forge.token(forge.claims(sub=role.name))))
        async with server.channel() as channel:
            while time.monotonic() < end:
                found = await role.call(site, channel, draw)
                ended[role.name][found.reason or found.code] += 1
                if (found.reason or found.code) not in role.expected and not _come_back(found):
                    unexpected.append(f"{role.name}: {found.code} {found.reason} {found.message[:100]}")
                if found.retry is not None:
                    await asyncio.sleep(min(found.retry, 2.0))

    sampler.start()
    async with asyncio.TaskGroup() as group:
        for role in roles:
            for number in range(role.clients):
                group.create_task(client(role, number))
    await sampler.stop()
    faults = [] if server.alive else ["the server has ended"]
    faults += [f"in the log: {line[:300]}" for line in server.command.log.splitlines() if "Traceback" in line]
    return Report(ended, unexpected, [*sampler.figures.values()], since, faults)


def _come_back(found: Answer) -> bool:
    """Whether the server asked to come back later: it is busy, as it should be."""
    return found.retry is not None and found.code in {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}
