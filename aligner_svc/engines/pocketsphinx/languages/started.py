"""The worker processes for other languages, which start when the first call needs them: a service that gets none pays nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from aligner_svc.domain import Warning
from aligner_svc.engines.windows import Cut


class Processes(Protocol):
    """A pool, or a queue in front of one."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...


P = TypeVar("P", bound=Processes)

CUT: Final = Cut(words_a_second=10.0)
"""Words of Chinese and Japanese have one syllable; the aligner leaves those that nobody can say in a window to the next."""
APPROXIMATE: Final = Warning(
    "APPROXIMATE",
    "this language is aligned by an English acoustic model; times are typically 20 to 40 ms off, some more (docs/languages.md)",
)


class Started(Generic[P]):
    """Processes that are made and started on demand. Use it on one event loop."""

    def __init__(self, make: Callable[[], P]) -> None:
        self._make = make
        self._starting: asyncio.Task[P] | None = None
        self._closed = False
        self.running: P | None = None

    async def get(self) -> P:
        """Raises WorkerDiedError if no process starts; the next call tries again. Takes 2 s the first time."""
        if self.running is not None:
            return self.running
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._start())
        return await asyncio.shield(self._starting)

    async def close(self) -> None:
        """Idempotent."""
        self._closed = True
        if self._starting is not None:
            await asyncio.wait({self._starting})
        if self.running is not None:
            await self.running.close()

    async def _start(self) -> P:
        made = self._make()
        try:
            await made.start()
        except BaseException:
            await made.close()
            raise
        finally:
            self._starting = None
        self.running = made
        if self._closed:
            await made.close()
        return made
