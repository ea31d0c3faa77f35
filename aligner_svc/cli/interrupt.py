"""Signals of the command line: Ctrl-C during a gRPC call, and those that must not end a server."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aligner_svc.cli.failures import INTERRUPTED


@contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """Make Ctrl-C end the process at once instead of raising KeyboardInterrupt.

    The exception can hit gRPC's blocking channel while it holds its own lock, and closing the channel then hangs (seen in
    1 of 20 tries; with gRPC's asyncio channel in 1 of some 100). Nothing is lost: results are written atomically.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def exit_now(number: int, frame: object) -> None:
        if sys.stderr.isatty():
            os.write(2, b"\x1b[?25h\n")  # the progress bar hides the cursor
        os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, exit_now)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def ignored(*names: str) -> Iterator[None]:
    """Ignore these signals, which end a process by default, until the server handles them: it takes a second to start."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {name: signal.signal(signal.Signals[name], signal.SIG_IGN) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(signal.Signals[name], handler)
