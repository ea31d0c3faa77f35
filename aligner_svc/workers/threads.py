"""Keeps long work off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

_INLINE_WORDS = 500
"""Work on more words goes to a thread: 500 hold the event loop for some 5 ms, 40,000 held it for a quarter of a second."""
_INLINE_BYTES = 256 * 1024
"""Hashing more bytes goes to a thread: SHA-256 takes 0.6 ms a MB and releases the interpreter lock meanwhile."""


async def off_loop(work: Callable[[*Ts], T], *arguments: *Ts, words: int = 0, size: int = 0) -> T:
    """`work(*arguments)`, in a thread if it is about many `words` or `size` bytes."""
    if words <= _INLINE_WORDS and size <= _INLINE_BYTES:
        return work(*arguments)
    return await asyncio.to_thread(work, *arguments)
