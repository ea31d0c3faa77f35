"""Servers are drained, or killed, under the load of clients that retry, and the next one takes over."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aligner_client import AlignerClientError, ApiKey, AsyncAligner, Tls
from tests.kit.guarded import Home
from tests.kit.prod_process import ProdProcess, prod_process
from tests.kit.recordings import SPEECH, TRANSCRIPT
from tests.kit.waiting import eventually

_CLIENTS: Final = 16
_ALIGNING: Final = 4
"""Of them; the others ask for the server's limits, which keeps their connections busiest."""


@dataclass
class Drains:
    """What became of the calls while servers ended. `lost`: by reason. `exits`: statuses of those that were drained."""

    count: int = 0
    calls: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    exits: list[int] = field(default_factory=list)


async def drain(count: int, number: signal.Signals = signal.SIGTERM) -> Drains:
    """So many times: start another server, have the clients know both, and end the one they use by that signal."""
    drains = Drains()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as scratch:
        home = Home(Path(folder), mtls=False)
        async with AsyncExitStack() as stack:
            current = await stack.enter_async_context(prod_process(home, Path(scratch)))
            key = (await home.new_key("align")).reveal()
            for _ in range(count):
                following = await stack.enter_async_context(prod_process(home, Path(scratch)))
                await _drained(current, following, key, drains, number)
                drains.count += 1
                current = following
    return drains


async def _drained(current: ProdProcess, following: ProdProcess, key: str, drains: Drains, number: signal.Signals) -> None:
    target = f"ipv4:{current.target},{following.target}"
    tls = Tls(ca=current.home.folder / "ca.pem", server_name="localhost")
    stop, served = asyncio.Event(), set[int]()

    async def client(which: int) -> None:
        async with AsyncAligner(target, tls=tls, auth=ApiKey(key)) as aligner:
            while not stop.is_set():
                try:
                    if which < _ALIGNING:
                        await aligner.align(SPEECH, TRANSCRIPT)
                    else:
                        await aligner.server_info()
                except AlignerClientError as error:
                    drains.lost[f"{error.code.name} {error.reason}"] += 1
                drains.calls += 1
                served.add(which)

    async with asyncio.TaskGroup() as group:
        for which in range(_CLIENTS):
            group.create_task(client(which))
        await eventually(lambda: len(served) == _CLIENTS, "every client to be served")
        current.command.process.send_signal(number)
        status = await current.command.exit_code()
        if number == signal.SIGTERM:
            drains.exits.append(status)
        served.clear()
        await eventually(lambda: len(served) == _CLIENTS, "every client to be served by the next server")
        stop.set()
