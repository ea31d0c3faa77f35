"""What guards lend the servicer for one call: quotas a meter, antivirus a scan, overload protection an admission."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview


class Meter(Protocol):
    """Charges the call to its client's quota. Either method raises CallRefusedError where the quota is spent."""

    async def received(self, size: int, message: Any) -> None:
        """A request message of `size` bytes has come in. The servicer has not seen it yet."""

    async def decoded(self, audio_seconds: float) -> None:
        """The length of the audio is known; nothing but its decoding has been spent on it."""


class UploadScan(Protocol):
    """Scans the call's upload. Either method raises CallRefusedError."""

    async def received(self, message: Any) -> None:
        """A request message has come in. The servicer has not seen it yet."""

    async def verdict(self, content: Buffer) -> None:
        """Return once `content`, the complete upload, has passed the scan."""


@dataclass(slots=True)
class WorkTimer:
    """Seconds that a call waited for the engine and that the engine worked on it; `worked` stays None if it did not finish."""

    waited: float = 0.0
    worked: float | None = None


class Admission(Protocol):
    """Admits the call to the engine."""

    def working(self) -> AbstractAsyncContextManager[WorkTimer]:
        """Entered once everything is received: waits for a place and holds it; the caller fills in the timer.

        Raises CallRefusedError if no place becomes free in time.
        """
