"""Hashing of uploads without holding up the event loop."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import TypeVar

from interceptors.calls.hooks import Buffer

T = TypeVar("T")

_INLINE_BYTES = 1 << 20
"""Hashed in 1 ms; more goes to a thread."""


async def off_loop(work: Callable[[Buffer], T], content: Buffer) -> T:
    """`work(content)`, in a thread if the content is large."""
    return work(content) if len(content) <= _INLINE_BYTES else await asyncio.to_thread(work, content)


async def sha256(content: Buffer) -> bytes:
    """32 bytes."""
    return (await off_loop(hashlib.sha256, content)).digest()
