"""Waiting for what happens beside a test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def eventually(condition: Callable[[], object], timeout: float = 10.0) -> None:  # noqa: ASYNC109 - what it is
    """Return once `condition()` is true. Raises TimeoutError after `timeout` seconds."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - whatever the condition reads has no event
            await asyncio.sleep(0.002)
