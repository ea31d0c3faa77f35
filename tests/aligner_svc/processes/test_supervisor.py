"""What the supervisor passes on and tells."""

from __future__ import annotations

import asyncio
import json
import socket

from aligner_svc.config import Settings
from aligner_svc.config.limits import ServerSettings
from aligner_svc.processes.duplex import Duplex
from aligner_svc.processes.readiness import readiness_of_all
from aligner_svc.processes.supervisor import Supervisor, _Member
from tests.kit.waiting import eventually

BLOCK = ("c0000207", "ipv4:192.0.2.7:49534", 1, 60.0)


async def join(supervisor: Supervisor, serial: int) -> tuple[Duplex, list[tuple[object, ...]]]:
    """A process's end of its link, and the blocks that it is told of."""
    told: list[tuple[object, ...]] = []

    async def block(*arguments: object) -> None:
        told.append(arguments)

    async def siblings(too_few: str | None) -> None:
        """How many serve is not of interest here."""

    ours, theirs = socket.socketpair()
    link, process = Duplex(supervisor.handlers(serial)), Duplex({"block": block, "siblings": siblings})
    await link.open(ours)
    await process.open(theirs)
    supervisor.members[serial] = _Member(serial, serial, None, link)  # type: ignore[arg-type]  # no process is needed
    return process, told


def test_what_all_processes_find_is_told_once_and_what_one_finds_with_its_number() -> None:
    fine, bad = (
        {"check": "engine", "state": state, "said": said, "hint": ""} for state, said in (("ok", "up"), ("fail", "down"))
    )
    report = json.loads(readiness_of_all(True, 1, 2, [(1, [fine, bad]), (2, [fine])]))
    assert report["ready"]
    assert [(one["check"], one["state"], one["said"]) for one in report["findings"]] == [
        ("processes", "warn", "1 of 2 processes serve"),
        ("engine", "ok", "up"),
        ("engine", "fail", "process 1: down"),
    ]


async def test_a_block_of_one_process_reaches_the_others_and_those_that_start_later() -> None:
    supervisor = Supervisor(Settings(server=ServerSettings(listen="127.0.0.1:0", processes=3)))
    (one, of_one), (other, of_other) = await join(supervisor, 1), await join(supervisor, 2)
    one.tell("blocked", *BLOCK)
    await eventually(lambda: of_other == [BLOCK])
    later, of_later = await join(supervisor, 3)
    later.tell("state", None)
    await eventually(lambda: of_later)
    assert of_later[0][:3] == BLOCK[:3]
    assert 0 < of_later[0][3] <= BLOCK[3]
    assert of_one == []
    for process in (one, other, later):
        process.close()
    await asyncio.gather(*(member.link.closed.wait() for member in supervisor.members.values()))
