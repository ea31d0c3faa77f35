"""What is done to the service while clients call it."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aligner_svc.transport import devcerts
from tests.chaos.site import ALIGNER, DECODER, Site
from tests.kit import certificates


@dataclass(frozen=True)
class Fault:
    """`strike` is done, and after `seconds` `mend`, where it does not mend itself.

    `refuses`: calls may be refused meanwhile, with a time to come back after; else none may be.
    """

    name: str
    strike: Callable[[Site], Awaitable[None]]
    mend: Callable[[Site], Awaitable[None]] | None = None
    seconds: float = 4.0
    refuses: bool = True


def _signal(kind: str, number: signal.Signals, most: int | None = None) -> Callable[[Site], Awaitable[None]]:
    async def strike(site: Site) -> None:
        site.send(site.workers(kind)[:most], number)

    return strike


async def _everything_killed(site: Site) -> None:
    site.send(site.command_children(), signal.SIGKILL)


async def _killed_again_and_again(site: Site) -> None:
    """As the kernel does that is short of memory."""
    for _ in range(6):
        site.send(site.workers(DECODER) + site.workers(ALIGNER), signal.SIGKILL)
        await asyncio.sleep(0.5)


def _daemon(name: str, what: str) -> Callable[[Site], Awaitable[None]]:
    async def act(site: Site) -> None:
        await asyncio.to_thread(getattr(getattr(site, name), what))

    return act


async def _issuer_gone(site: Site) -> None:
    await site.issuer.stop()


async def _issuer_back(site: Site) -> None:
    port = int(site.issuer.url.rpartition(":")[2])
    site.issuer.server = await asyncio.start_server(site.issuer.answer, "127.0.0.1", port)


async def _new_certificates(site: Site) -> None:
    """Of the same CA, in place of those in use."""
    devcerts.write(site.home.folder, "server", certificates.server(site.home.ca))


async def _broken_certificates(site: Site) -> None:
    (site.home.folder / "server.pem").write_text("no certificate")


async def _hang_up(site: Site) -> None:
    os.kill(site.server.pid, signal.SIGHUP)


async def _dumps(site: Site) -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        os.kill(site.server.pid, number)


async def _disk_full(site: Site) -> None:
    """No file of the server grows any more (RLIMIT_FSIZE), the audit log among them."""
    resource.prlimit(site.server.pid, resource.RLIMIT_FSIZE, (1, 1))


FAULTS = (
    Fault("one decoder: kill -9", _signal(DECODER, signal.SIGKILL, 1)),
    Fault("one aligner: kill -9", _signal(ALIGNER, signal.SIGKILL, 1)),
    Fault("all decoders: kill -9", _signal(DECODER, signal.SIGKILL)),
    Fault("all aligners: kill -9", _signal(ALIGNER, signal.SIGKILL)),
    Fault("all workers: kill -9", _everything_killed),
    Fault("workers: killed for 3 s", _killed_again_and_again, seconds=5.0),
    Fault("one decoder: SIGSTOP", _signal(DECODER, signal.SIGSTOP, 1)),
    Fault("one aligner: SIGSTOP", _signal(ALIGNER, signal.SIGSTOP, 1)),
    Fault("all decoders: SIGSTOP", _signal(DECODER, signal.SIGSTOP)),
    Fault("all aligners: SIGSTOP", _signal(ALIGNER, signal.SIGSTOP)),
    Fault("clamd: kill -9", _daemon("clamd", "kill"), _daemon("clamd", "start")),
    Fault("clamd: SIGSTOP", _daemon("clamd", "pause"), _daemon("clamd", "resume"), seconds=10.0),
    Fault("Redis: kill -9", _daemon("redis", "kill"), _daemon("redis", "start"), refuses=False),
    Fault("Redis: SIGSTOP", _daemon("redis", "pause"), _daemon("redis", "resume"), refuses=False),
    Fault("PostgreSQL: stopped", _daemon("postgres", "stop"), _daemon("postgres", "start"), refuses=False),
    Fault("PostgreSQL: SIGSTOP", _daemon("postgres", "pause"), _daemon("postgres", "resume"), refuses=False),
    Fault("issuer: gone", _issuer_gone, _issuer_back, refuses=False),
    Fault("certificates: new", _new_certificates, refuses=False),
    Fault("certificates: broken", _broken_certificates, _new_certificates, refuses=False),
    Fault("SIGHUP", _hang_up, refuses=False),
    Fault("SIGUSR1, SIGUSR2", _dumps, refuses=False),
    Fault("disk full", _disk_full, refuses=False),
)
"""The last one is not mended: the hard limit cannot be raised again."""
