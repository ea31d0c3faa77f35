"""Ctrl-C while gRPC is at work."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aligner_svc.cli.failures import INTERRUPTED


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Ctrl-C ends the process there and then.

    As an exception it may hit gRPC's blocking channel while that holds its own lock, and closing the channel then waits for
    ever (seen in one of 20 tries); gRPC's asyncio channel has done so too, once in some hundred. Nothing is lost: an answer is
    written once it is complete, and takes its name when it is written.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        if sys.stderr.isatty():
            os.write(2, b"\x1b[?25h\n")  # the progress bar hides the cursor
        os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
