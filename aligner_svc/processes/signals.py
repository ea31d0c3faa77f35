"""What the signals of a server do."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable


def handle(*, end: Callable[[], object], reload: Callable[[], object], dump: Callable[[], object]) -> None:
    """`end`: SIGTERM, SIGINT, SIGQUIT; `reload`: SIGHUP; `dump`: SIGUSR1, SIGUSR2. On the running event loop."""
    loop = asyncio.get_running_loop()
    actions = {signal.SIGTERM: end, signal.SIGINT: end, signal.SIGQUIT: end, signal.SIGHUP: reload}
    for number, action in (actions | dict.fromkeys((signal.SIGUSR1, signal.SIGUSR2), dump)).items():
        loop.add_signal_handler(number, action)
