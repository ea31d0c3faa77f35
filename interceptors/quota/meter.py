"""Charges a call as it goes on: a stream's bytes and audio as they arrive, and the true length of the audio once it is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from interceptors.quota.classes import QuotaClass
from interceptors.quota.refusal import refusal
from interceptors.quota.stores.base import Left, QuotaStore

Estimate = Callable[[Any], float]
"""Of one call: seconds of audio that a message of it probably holds; it may remember what earlier messages said."""

STEP_BYTES = 256 * 1024
"""Charged at a time while a stream comes in: a round trip for each of its chunks would be one every 16 KiB."""


class CallMeter:
    """Belongs to one call, which holds `lease`. `left` is what was left of each quota when it was last asked."""

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
        """Seconds of audio that were charged so far."""
        self._known = False
        self._stream = stream

    async def received(self, size: int, message: Any) -> None:
        """A stream is charged as it grows. A unary call has come in whole: it is charged once its length is known."""
        self._pending_bytes += size
        if not self._stream:
            return
        self._pending_seconds += self._estimate(message)
        if self._pending_bytes >= STEP_BYTES:
            await self._charge(self._pending_seconds, self._pending_bytes)

    async def decoded(self, audio_seconds: float) -> None:
        """Charges what the estimate was short of, or gives back what it was over."""
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
        """The call came to nothing, and not by its caller's doing: the request is given back."""
        await self._store.settle(self._subject, self._quota.charges(requests=-1.0), self._lease)

    async def close(self) -> None:
        """The call is over. What is owed is taken, and audio that was never decoded is given back."""
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
