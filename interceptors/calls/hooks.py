"""What guards lend the servicer for one call: a meter to charge by, a scan to wait for."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview


class Meter(Protocol):
    """Charges one call. Either method raises RefusedError where the client's quota is spent."""

    async def received(self, size: int, message: Any) -> None:
        """A request message of `size` bytes has come in. The servicer has not seen it yet."""

    async def decoded(self, audio_seconds: float) -> None:
        """The length of the audio is known; nothing but its decoding has been spent on it."""


class Scanning(Protocol):
    """Scans the upload of one call. Either method raises RefusedError."""

    async def received(self, message: Any) -> None:
        """A request message has come in. The servicer has not seen it yet."""

    async def verdict(self, content: Buffer) -> None:
        """Return once `content`, the complete upload, has passed the scan."""
