"""What guards lend the servicer for one call: quotas a meter, antivirus a scan, overload protection an admission."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from interceptors.calls.refusal import CallRefusedError

Buffer: TypeAlias = bytes | bytearray | memoryview


class Meter(Protocol):
    """Charges the call to its client's quota. Each method raises CallRefusedError where the quota is spent."""

    async def received(self, size: int, message: Any) -> None:
        """A request message of `size` bytes has come in. The servicer has not seen it yet. None: it is refused."""

    async def text(self, audio_seconds: float) -> None:
        """A transcript is about to be worked on, which costs as much as so much audio."""

    async def worked(self, audio_seconds: float) -> None:
        """So much of audio that is still coming has been worked on, which is not given back."""

    async def decoded(self, audio_seconds: float) -> None:
        """The length of the audio is known; nothing but its decoding has been spent on it."""


class UploadScan(Protocol):
    """Scans the call's upload. Either method raises CallRefusedError."""

    async def received(self, message: Any) -> None:
        """A request message has come in. The servicer has not seen it yet."""

    @property
    def skipped(self) -> bool:
        """Whether the upload, of which a message has come, is not scanned."""

    async def verdict(self, content: Buffer) -> None:
        """Return once `content`, the complete upload, has passed the scan."""


@dataclass(slots=True)
class WorkTimer:
    """Seconds that a call waited for the engine and that the engine worked on it; `worked` stays None if it did not finish."""

    waited: float = 0.0
    worked: float | None = None


EndReading: TypeAlias = Callable[[CallRefusedError], None]
"""Ends a call that still waits for its client, with this refusal. Does nothing once the request has arrived."""


class Admission(Protocol):
    """Admits the call to the server's memory while its request arrives, and then to the engine."""

    async def read(self, end: EndReading, *, whole: bool) -> None:
        """The request is about to be read; `whole`: in one message, whose size is not known before. May wait until it can be.

        Raises CallRefusedError.
        """

    async def received(self, size: int) -> None:
        """A message of a stream has come, of `size` bytes. Waits until there is room for more."""

    def consumed(self, size: int) -> None:
        """So many bytes of what was received are not kept any more."""

    def arrived(self) -> None:
        """The request is complete: from now on the call counts as work. Raises CallRefusedError."""

    def followed(self) -> None:
        """The call is worked on while its request arrives: it needs no place, not even when the request is complete."""

    def working(self) -> AbstractAsyncContextManager[WorkTimer]:
        """Waits for a place to work in and holds it; the caller fills in the timer.

        Raises CallRefusedError if no place becomes free in time.
        """

    async def prolong(self) -> None:
        """While `working`: the work turns out to be long. The place is given up for one among the long calls; may wait for it.

        Raises CallRefusedError if none becomes free in time. Idempotent.
        """
