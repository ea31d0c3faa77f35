"""What every thread and task is doing, for a log."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any

log = logging.getLogger(__name__)


def stacks() -> Iterator[str]:
    """The stack of each thread, and of the tasks of the running event loop, those at the same place together; no values."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - documented
        yield f"thread {names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}"
    for place, count in Counter(map(_place, asyncio.all_tasks())).most_common():
        yield f"{count} tasks: {place}"


def log_stacks() -> None:
    """Log what every thread and task is doing."""
    for stack in stacks():
        log.warning("%s", stack)


def _place(task: asyncio.Task[Any]) -> str:
    lines = [f'  File "{frame.f_code.co_filename}", line {frame.f_lineno}' for frame in task.get_stack()]
    return "\n".join((getattr(task.get_coro(), "__qualname__", "unknown"), *lines))
