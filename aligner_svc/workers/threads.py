"""Keeping the event loop free of long work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_INLINE_WORDS = 500
"""Work on more words goes to a thread: 500 hold the event loop for some 5 ms, 40,000 held it for a quarter of a second."""


async def off_loop(words: int, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """`work`, in a thread if it is about many words."""
    if words <= _INLINE_WORDS:
        return work(*arguments, **named)
    return await asyncio.to_thread(work, *arguments, **named)
