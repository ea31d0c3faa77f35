"""What a call is charged while it goes on: the interceptors and the servicer tell the meter, the meter asks the quotas."""

from __future__ import annotations

from typing import Any, Protocol


class Meter(Protocol):
    """Of one call. Either method raises RefusedError where the caller's quota is spent."""

    async def received(self, size: int, message: Any) -> None:
        """A request message of `size` bytes has come in. Nobody has seen it yet."""

    async def decoded(self, audio_seconds: float) -> None:
        """What the upload really holds is known, and nothing has been spent on it but its decoding."""
