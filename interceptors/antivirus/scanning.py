"""What a call is scanned by while it goes on: the interceptors tell it what comes in, the servicer asks it for the verdict."""

from __future__ import annotations

from typing import Any, Protocol

from interceptors.antivirus.clamav import Buffer


class Scanning(Protocol):
    """Of one call. Either method raises RefusedError."""

    async def received(self, message: Any) -> None:
        """A request message has come in. Nobody has seen it yet."""

    async def verdict(self, content: Buffer) -> None:
        """All of the upload is there, as the messages had it. Returns when it may be worked on, and not before."""
