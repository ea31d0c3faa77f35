"""Files that are read again when they change: certificates, keys, policies.

By polling: what Kubernetes mounts changes by a symbolic link two levels up, which inotify on the file does not see.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

log = logging.getLogger("interceptors.file_watch")

_Signature = tuple[tuple[int, int, int, int] | None, ...]


class FileWatch:
    """Calls `changed` on the event loop after any of `paths` has changed and then stayed the same for one interval.

    `changed` reads the files itself and keeps what it has when they are bad; it is called again after the next change.
    """

    def __init__(self, paths: Sequence[Path], changed: Callable[[], None], every: float) -> None:
        self._paths = tuple(paths)
        self._changed = changed
        self._every = every
        self._task: asyncio.Task[None] | None = None
        self._taken = self._signature()

    async def start(self) -> None:
        """Watch from now on; a change since the watch was made counts."""
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Idempotent."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        before = self._taken
        while True:
            await asyncio.sleep(self._every)
            now = await asyncio.to_thread(self._signature)
            # Two files that belong together are not written at once: wait until they rest.
            if now != self._taken and now == before:
                self._taken = now
                try:
                    self._changed()
                except Exception:
                    log.exception("%s changed and could not be taken in", ", ".join(map(str, self._paths)))
            before = now

    def _signature(self) -> _Signature:
        return tuple(_stat(path) for path in self._paths)


def _stat(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
