"""Files that are read again when they change: certificates, keys, policies.

By polling: what Kubernetes mounts changes by a symbolic link two levels up, which inotify on the file does not see.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from interceptors.background import BackgroundTask

_Signature = tuple[tuple[int, int, int, int] | None, ...]


class FileWatch:
    """Calls `changed` on the event loop after any of `paths` has changed and then stayed the same for one interval.

    `changed` reads the files itself and keeps what it has when they are bad; it is called again after the next change.
    """

    def __init__(self, paths: Sequence[Path], changed: Callable[[], None], every: float) -> None:
        self._paths = tuple(paths)
        self._changed = changed
        self._taken = self._before = self._signature()
        what = f"taking in the changed {', '.join(map(str, self._paths))}"
        self._task = BackgroundTask(what, self._look, every=every)

    async def start(self) -> None:
        """Watch from now on; a change since the watch was made counts."""
        self._task.start()

    async def close(self) -> None:
        """Idempotent."""
        await self._task.close()

    async def _look(self) -> None:
        before, self._before = self._before, await asyncio.to_thread(self._signature)
        # Files that belong together are not written at once: wait until none of them changes any more.
        if self._taken != self._before == before:
            self._taken = before
            self._changed()

    def _signature(self) -> _Signature:
        return tuple(_stat(path) for path in self._paths)


def _stat(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
