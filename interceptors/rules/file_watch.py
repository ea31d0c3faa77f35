"""Watches files, such as certificates, keys and policies, and has them read again after a change.

By polling: Kubernetes changes a mounted file by a symbolic link two levels up, which inotify on the file does not see.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from interceptors.background import BackgroundTask

_Signature = tuple[tuple[int, int, int, int] | None, ...]


class FileWatch:
    """Calls `changed` on the event loop after any of `paths` has changed and then stayed the same for one interval.

    `changed` reads the files itself and keeps what is in force if they are bad; it is called again after the next change.
    """

    def __init__(self, paths: Sequence[Path], changed: Callable[[], None], every: float) -> None:
        self._paths = tuple(paths)
        self._changed = changed
        self._applied = self._before = self._signature()
        what = f"reading the changed {', '.join(map(str, self._paths))}"
        self._task = BackgroundTask(what, self._check, every=every)

    async def start(self) -> None:
        """Watch from now on; a change since the object was created counts."""
        self._task.start()

    async def close(self) -> None:
        """Idempotent."""
        await self._task.close()

    async def _check(self) -> None:
        before, self._before = self._before, await asyncio.to_thread(self._signature)
        # Files that belong together are not written at the same time: wait until none changes any more.
        if self._applied != self._before == before:
            self._applied = before
            self._changed()

    def _signature(self) -> _Signature:
        return tuple(_stat(path) for path in self._paths)


def _stat(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
