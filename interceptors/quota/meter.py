"""Charges a call in progress: a stream's bytes and audio as they come, long text, and the audio's length once it is known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from interceptors.quota.classes import QuotaClass
from interceptors.quota.refusal import refusal
from interceptors.quota.stores.base import Charge, Left, QuotaStore

Estimate = Callable[[Any], float]
"""Of one call: seconds of audio that a message probably holds; it may use what earlier messages said."""

STEP_BYTES = 256 * 1024
"""Charged at a time while a stream comes in, not for each chunk: that would be a round trip every 16 KiB."""


@dataclass(eq=False)
class CallMeter:
    """Of one call, which holds `lease`. `left`: units left of each quota when the store was last asked."""

    store: QuotaStore
    subject: str
    quota: QuotaClass
    lease: str
    left: dict[str, float]
    estimate: Estimate
    stream: bool
    _pending_bytes: int = 0
    _pending_seconds: float = 0.0
    _reserved: float = 0.0
    """Seconds of audio charged so far."""
    _worked: float = 0.0
    """Seconds of audio that the engine has worked on, of a recording that is still coming."""
    _text: float = 0.0
    """The same for the transcript, given back only together with the request."""
    _known: bool = False
    """Whether the length of the audio is known."""
    _charging: asyncio.Task[None] | None = None
    """The charge in progress, which outlives the call that is cancelled."""

    async def received(self, size: int, message: Any) -> None:
        """A stream is charged as it grows. A unary call, which is complete, is charged once its length is known."""
        self._pending_bytes += size
        if not self.stream:
            return
        self._pending_seconds += self.estimate(message)
        if self._pending_bytes >= STEP_BYTES:
            await self._whole(self._charge(self._pending_seconds, self._pending_bytes))

    async def text(self, audio_seconds: float) -> None:
        """Charges what a transcript costs, before it is worked on."""
        await self._whole(self._charge_text(audio_seconds))

    async def worked(self, audio_seconds: float) -> None:
        """Charges what was worked on beyond the estimate so far; none of it is given back when the call is over."""
        self._worked = audio_seconds
        if audio_seconds > self._reserved:
            await self._whole(self._charge(audio_seconds - self._reserved, self._pending_bytes))

    async def decoded(self, audio_seconds: float) -> None:
        """Charges the rest if the estimate was too low, or gives back the excess."""
        await self._whole(self._correct(audio_seconds))

    async def close(self, *, refund: bool) -> None:
        """The call is over: charge bytes not charged yet, and give back audio that was never decoded.

        `refund`: the server could not serve the call; give back the request and all of its audio too. To be called once, and not
        to be cancelled.
        """
        if self._charging is not None:
            await asyncio.gather(self._charging, return_exceptions=True)
        kept = 0.0 if refund else self._reserved if self._known else min(self._worked, self._reserved)
        back = kept - self._reserved
        if refund:
            back -= self._text
        if refund or back or self._pending_bytes:
            charges = self.quota.charges(requests=-1.0 if refund else None, audio_seconds=back, size=self._pending_bytes)
            await self.store.finish(self.subject, charges, self.lease)
        else:
            await self.store.release(self.subject, self.lease)

    async def _whole(self, charge: Coroutine[None, None, None]) -> None:
        """Run `charge` to its end even if the call is cancelled meanwhile: what the store has counted has to be known here."""
        if not self.store.waits:
            await charge
            return
        self._charging = asyncio.create_task(charge)
        await asyncio.shield(self._charging)

    async def _correct(self, audio_seconds: float) -> None:
        more = audio_seconds - self._reserved
        self._known = True
        if more > 0:
            await self._charge(more, self._pending_bytes)
        else:
            charges = self.quota.charges(audio_seconds=more, size=self._pending_bytes)
            await self.store.settle(self.subject, charges, self.lease)
            for charge in charges:
                if charge.bucket.name in self.left:
                    self.left[charge.bucket.name] -= charge.cost
            self._clear()
        self._reserved = audio_seconds

    async def _charge_text(self, seconds: float) -> None:
        await self._take(self.quota.charges(audio_seconds=seconds))
        self._text += seconds

    async def _charge(self, seconds: float, size: int) -> None:
        await self._take(self.quota.charges(audio_seconds=seconds, size=size))
        if not self._known:
            self._reserved += seconds
        self._clear()

    async def _take(self, charges: Sequence[Charge]) -> None:
        answer = await self.store.charge(self.subject, charges, self.lease)
        if not isinstance(answer, Left):
            raise refusal(answer, self.subject)
        self.left.update(answer.remaining)

    def _clear(self) -> None:
        self._pending_bytes = 0
        self._pending_seconds = 0.0
