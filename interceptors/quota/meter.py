"""Charges a call in progress: a stream's bytes and audio as they arrive, and the audio's true length once it is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from interceptors.quota.classes import QuotaClass
from interceptors.quota.refusal import refusal
from interceptors.quota.stores.base import Left, QuotaStore

Estimate = Callable[[Any], float]
"""Of one call: seconds of audio that a message probably holds; it may use what earlier messages said."""

STEP_BYTES = 256 * 1024
"""Charged at a time while a stream comes in, not for each chunk: that would be a round trip every 16 KiB."""


class CallMeter:
    """Of one call, which holds `lease`. `left`: units left of each quota when the store was last asked."""

    def __init__(
        self,
        store: QuotaStore,
        subject: str,
        quota: QuotaClass,
        *,
        lease: str,
        left: Mapping[str, float],
        estimate: Estimate,
        stream: bool,
    ) -> None:
        self.left = dict(left)
        self._store = store
        self._subject = subject
        self._quota = quota
        self._lease = lease
        self._estimate = estimate
        self._pending_bytes = 0
        self._pending_seconds = 0.0
        self._reserved = 0.0
        """Seconds of audio charged so far."""
        self._known = False
        self._stream = stream

    async def received(self, size: int, message: Any) -> None:
        """A stream is charged as it grows. A unary call, which is complete, is charged once its length is known."""
        self._pending_bytes += size
        if not self._stream:
            return
        self._pending_seconds += self._estimate(message)
        if self._pending_bytes >= STEP_BYTES:
            await self._charge(self._pending_seconds, self._pending_bytes)

    async def decoded(self, audio_seconds: float) -> None:
        """Charges the rest if the estimate was too low, or gives back the excess."""
        more = audio_seconds - self._reserved
        self._known = True
        if more > 0:
            await self._charge(more, self._pending_bytes)
        else:
            charges = self._quota.charges(audio_seconds=more, size=self._pending_bytes)
            await self._store.settle(self._subject, charges, self._lease)
            for charge in charges:
                if charge.bucket.name in self.left:
                    self.left[charge.bucket.name] -= charge.cost
            self._clear()
        self._reserved = audio_seconds

    async def refund(self) -> None:
        """Give the request back: the server could not serve the call."""
        await self._store.settle(self._subject, self._quota.charges(requests=-1.0), self._lease)

    async def close(self) -> None:
        """The call is over: charge bytes not charged yet, and give back audio that was never decoded."""
        back = 0.0 if self._known else -self._reserved
        if back or self._pending_bytes:
            charges = self._quota.charges(audio_seconds=back, size=self._pending_bytes)
            await self._store.finish(self._subject, charges, self._lease)
        else:
            await self._store.release(self._subject, self._lease)

    async def _charge(self, seconds: float, size: int) -> None:
        answer = await self._store.charge(self._subject, self._quota.charges(audio_seconds=seconds, size=size), self._lease)
        if not isinstance(answer, Left):
            raise refusal(answer, self._subject)
        self.left.update(answer.remaining)
        if not self._known:
            self._reserved += seconds
        self._clear()

    def _clear(self) -> None:
        self._pending_bytes = 0
        self._pending_seconds = 0.0
