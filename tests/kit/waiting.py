"""Waiting for a condition instead of for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

WAIT_TIMEOUT = 60.0
"""Seconds after which a wait fails: far more than a busy machine needs, less than pytest's timeout of 120."""
_INTERVAL = 0.005


async def eventually(
    condition: Callable[[], object | Awaitable[object]],
    what: str = "the condition",
    *,
    timeout: float = WAIT_TIMEOUT,  # noqa: ASYNC109 - the message names it
) -> None:
    """Poll until `condition`, which may be a coroutine function, returns something true. AssertionError after `timeout` s."""
    try:
        async with asyncio.timeout(timeout):
            while True:
                met = condition()
                if await met if isinstance(met, Awaitable) else met:
                    return
                await asyncio.sleep(_INTERVAL)
    except TimeoutError:
        raise AssertionError(f"not within {timeout:g} s: {what}") from None


def eventually_blocking(condition: Callable[[], object], what: str = "the condition", *, timeout: float = WAIT_TIMEOUT) -> None:
    """`eventually` where there is no event loop."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(_INTERVAL)


async def loop_turns(count: int = 1) -> None:
    """Let the event loop run what is ready, `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def forever() -> None:
    """Wait until cancelled."""
    await asyncio.Event().wait()
