"""The bytes of a connection, and whether its client is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

PART: Final = 64 * 1024
"""Bytes that are read at a time."""


class LostError(ConnectionError):
    """The client has gone."""


class Stream(asyncio.StreamReaderProtocol):
    """A connection's bytes. `on_lost` is called when the client goes, even while nothing is read."""

    def __init__(self, accepted: Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]) -> None:
        super().__init__(asyncio.StreamReader(PART), accepted)
        self.lost = False
        self.on_lost: Callable[[], None] | None = None

    def eof_received(self) -> bool | None:
        """A client that closes its half has gone: no further request can come, and nobody knows whether it still reads."""
        keep = super().eof_received()
        self._lose()
        return keep

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lose()

    def watch(self, on_lost: Callable[[], None] | None) -> None:
        """Call it at once if the client has gone already."""
        self.on_lost = on_lost
        if on_lost is not None and self.lost:
            on_lost()

    def _lose(self) -> None:
        self.lost = True
        if self.on_lost is not None:
            self.on_lost()
